"""Codecs: the loss of an update on the wire, and its bytes there.

A codec stands between an update and its message. It writes the server's decoded values into the update, so that shared
memory, a simulation and a network carry the same numbers, and it states the bytes of the wire form, which links charge.
State that it keeps from push to push (an error that is fed back) is in tensors known to checkpoints and replay. P is
the length of the flat vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import dataclass_transform

import torch
from torch import Tensor


@dataclass_transform(frozen_default=True)
class Codec:
    """A codec without loss. A subclass is a frozen dataclass, without a decorator."""

    vectors = 0
    """The number of its state vectors (P,) at each worker, initially zero."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    def encode(self, update: Tensor, state: Sequence[Tensor]) -> int:
        """Replace the update (P,), in place, by its decoded value; return the bytes of its wire form."""
        return self.size_bytes(update.numel())

    def size_bytes(self, elements: int) -> int:
        """The bytes of the wire form of so many elements, for tasks without parameters; their mean if they vary."""
        return 4 * elements


class Cast(Codec):
    """A cast of each element to a type of two bytes: to the nearest value, and to infinity beyond its range."""

    dtype: torch.dtype

    def encode(self, update: Tensor, state: Sequence[Tensor]) -> int:
        """In place: there and back."""
        update.copy_(update.to(self.dtype))
        return self.size_bytes(update.numel())

    def size_bytes(self, elements: int) -> int:
        """The bytes of so many values in this type."""
        return self.dtype.itemsize * elements
