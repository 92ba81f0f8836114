"""Extreme samples for the checks before training: a model or a loss may accept all of a data set except these."""

from __future__ import annotations

import torch
from torch import Tensor

from asgd_lab.tasks.base import Data
from asgd_lab.tasks.samples import chunks


def extreme_samples(data: Data, split: str) -> Tensor | None:
    """Indices of the samples with the least and the greatest integer among inputs and labels; None without integers.

    An index beyond a table, or a class beyond the outputs, is in one of these samples.
    """
    found = {
        _extreme(values, least)
        for part in ("images", "labels")
        if (values := data.get(f"{split}_{part}")) is not None and _is_whole(values)
        for least in (True, False)
    }
    return torch.tensor(sorted(found)) if found else None


def _extreme(values: Tensor, least: bool) -> int:
    """The first sample with the least or the greatest integer."""
    flat = (each.reshape(len(each), -1) for each in chunks(values))
    ends = torch.cat([each.amin(1) if least else each.amax(1) for each in flat])
    return int(ends.argmin() if least else ends.argmax())


def _is_whole(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool) and values.numel() > 0
