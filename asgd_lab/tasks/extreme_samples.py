"""Samples that a try-out should meet, since a model or a loss may take all of a data set but these."""

from __future__ import annotations

import torch
from torch import Tensor

from asgd_lab.tasks.base import Data


def extreme_samples(data: Data, split: str) -> Tensor | None:
    """The samples with the least and greatest whole number among inputs and among labels; None where none are whole.

    An index that no table has, or a class that no output stands for, is one of them.
    """
    found = {
        int(flat.amin(1).argmin() if least else flat.amax(1).argmax())
        for part in ("images", "labels")
        if (values := data.get(f"{split}_{part}")) is not None and _is_whole(values)
        for flat in [values.flatten(1) if values.dim() > 1 else values.unsqueeze(1)]
        for least in (True, False)
    }
    return torch.tensor(sorted(found)) if found else None


def _is_whole(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool) and values.numel() > 0
