"""The task that learns nothing: a size to move and a time to spend, both stated; its learners do nothing at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol, final

import torch
from torch import Tensor

from asgd_lab.tasks.base import CPU, Bufferless, OneByOne


class TimingConfig(Protocol):
    """The part of a scenario that states it."""

    @property
    def size_bytes(self) -> int:
        """What one push or one fetch moves."""
        ...


@final
class TimingLearner:
    """Does nothing: whoever runs it knows how long a step takes."""

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version = 0

    def minibatch(self, step: int) -> tuple[float, float]:
        """No loss and no error."""
        return (math.nan, math.nan)

    def reset_momentum(self) -> None:
        """Nothing to forget."""

    def buffers(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to go on from."""

    def warm_up(self) -> None:
        """Nothing to run."""


@final
class TimingTask(Bufferless):
    """An empty vector that counts as `size_bytes`."""

    def __init__(self, config: TimingConfig) -> None:
        self.size = 0
        self.size_bytes = config.size_bytes

    def initial(self) -> Tensor:
        """The empty vector."""
        return torch.empty(0)

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> TimingLearner:
        """Bound to nothing."""
        return TimingLearner()

    def batch(self, device: torch.device = CPU) -> OneByOne:
        """Nothing to gain."""
        return OneByOne()

    def evaluate(
        self, params: Tensor, buffers: Mapping[str, Tensor] | None = None, *, of_replica: bool = False
    ) -> list[tuple[str, str, float]]:
        """No rows."""
        return []
