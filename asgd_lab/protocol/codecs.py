"""Codecs: what an update loses on the wire, and how many bytes it takes there.

A codec stands between an update and its message. It writes into the update what the server will decode, so that shared
memory, a simulation and a network carry the same numbers, and it states the bytes of the wire form, which links charge.
What it keeps from push to push (an error that is fed back) is in tensors that checkpoints and replay know of. P is the
length of the flat vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import dataclass_transform

import torch
from torch import Tensor


@dataclass_transform(frozen_default=True)
class Codec:
    """Nothing is lost. A subclass is a frozen dataclass, without a decorator."""

    vectors = 0
    """The number of vectors (P,) that it keeps at each worker, all 0 at first."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    def encode(self, update: Tensor, state: Sequence[Tensor]) -> int:
        """Make of the update (P,), in place, what the server decodes of it; the bytes of its wire form."""
        return self.size_bytes(update.numel())

    def size_bytes(self, elements: int) -> int:
        """The bytes of the wire form of so many elements, for tasks without parameters; a mean, where they vary."""
        return 4 * elements


class Cast(Codec):
    """Each element in a type of two bytes: rounded to the nearest, and to infinity beyond its range."""

    dtype: torch.dtype

    def encode(self, update: Tensor, state: Sequence[Tensor]) -> int:
        """In place: there and back."""
        update.copy_(update.to(self.dtype))
        return self.size_bytes(update.numel())

    def size_bytes(self, elements: int) -> int:
        """Two for each."""
        return self.dtype.itemsize * elements
