"""Where a section measures: on a GPU, or on a CPU that stands in for one, whose figures mean nothing for a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

STAND_IN = "ASGD_LAB_GPUS_STAND_IN"
T = TypeVar("T")


class Failed(Exception):
    """A section has found something to be wrong; what it has measured until then is kept."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whether there is a GPU, and what each row says that it was measured on."""

    gpu: bool
    on: str

    @property
    def device(self) -> torch.device:
        """Where a plain loop computes."""
        return torch.device("cuda", 0) if self.gpu else torch.device("cpu")

    def size(self, full: T, small: T) -> T:
        """How large something is: `full` on a GPU; `small` where only the code is tried."""
        return full if self.gpu else small

    def backend(self, name: str = "process", **more: Any) -> dict[str, Any]:
        """A scenario's backend whose workers compute here."""
        return {"name": name, "device": "cuda", **more}


def find() -> Place:
    """The first GPU; a CPU where the variable says that it stands in for one."""
    if not os.environ.get(STAND_IN):
        return Place(True, torch.cuda.get_device_name(0))
    return Place(False, "a CPU in the place of a GPU, at small sizes")


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, quartiles, and of how many."""
    low, median, high = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
    return {"median": rounded(median), "low": rounded(low), "high": rounded(high), "n": len(values)}


def rounded(value: float) -> float:
    """To four digits, as much as is measured."""
    return float(f"{value:.4g}")


def synchronize(place: Place) -> None:
    """Return when the device has done all that it was asked."""
    if place.gpu:
        torch.cuda.synchronize()
