"""Samples by their indices, converted after they are picked: what is stored keeps its type, and may lie in a file.

Nothing here makes a second copy of a whole data set: scans go through it in chunks.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from asgd_lab.tasks.base import Data

_CHUNK = 2**20  # elements
# torch has little for the types on the left: their bits are read as those of a signed type, and then widened.
_UNSIGNED = {
    torch.uint16: (torch.int16, torch.int32, 0xFFFF),
    torch.uint32: (torch.int32, torch.int64, 0xFFFFFFFF),
}


def pick(data: Data, split: str, index: Tensor) -> Tensor:
    """The inputs (B, ...) of the samples (B,) of "train" or "test", in the type that the model receives.

    Pixels, uint8 of (N, C, H, W), become float32, standardised where the data have "standard": a mean and a deviation
    for each channel, or for all. Other floating point becomes float32 too; other inputs keep their values.
    """
    images = data[f"{split}_images"]
    members = data.get(f"{split}_members")
    if members is None:
        return _standardised(data, _at(images, index))
    chosen = members.index_select(0, index)
    return images.index_select(0, chosen.flatten()).view(*chosen.shape, *images.shape[2:])


def _standardised(data: Data, inputs: Tensor) -> Tensor:
    standard, found = data.get("standard"), _converted(inputs)
    if standard is None:
        return found
    mean, deviation = standard.to(found.device).view(2, -1, *[1] * (found.dim() - 2))
    return found.sub_(mean).div_(deviation)


def _converted(inputs: Tensor) -> Tensor:
    if inputs.is_floating_point() or (inputs.dtype == torch.uint8 and inputs.dim() == 4):
        return inputs.to(torch.float32)
    return inputs


def labels_of(stored: Tensor, index: Tensor) -> Tensor:
    """The labels (B, ...) of the samples (B,): int64, float32 or complex."""
    return _as_labels(_at(stored, index))


def _at(stored: Tensor, index: Tensor) -> Tensor:
    if stored.dtype not in _UNSIGNED:
        return stored.index_select(0, index)
    return _widened(stored.view(_UNSIGNED[stored.dtype][0]).index_select(0, index), stored.dtype)


def _widened(signed: Tensor, dtype: torch.dtype) -> Tensor:
    _, wide, mask = _UNSIGNED[dtype]
    return signed.to(wide).bitwise_and_(mask)


def _as_labels(stored: Tensor) -> Tensor:
    if stored.is_complex():
        return stored
    return stored.to(torch.float32 if stored.is_floating_point() else torch.int64)


def chunks(stored: Tensor) -> Iterator[Tensor]:
    """All samples in their order, some at a time; integers as int64."""
    length = max(1, _CHUNK // max(1, stored[:1].numel()))
    for part in torch.split(stored, length):
        yield _as_labels(part)
