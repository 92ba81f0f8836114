"""The layout of parameters in one flat vector, a function of their shapes alone, so any process can apply it.

Each parameter starts at a 64-byte boundary: kernels are faster there, and take the same path, hence give the same
bits, at any address of the vector. The gaps between parameters hold zeros, and no gradient ever reaches them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from asgd_lab.errors import ProtocolError

ALIGNMENT_BYTES = 64
_ALIGNMENT = ALIGNMENT_BYTES // 4


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape and the first element of each parameter in the vector."""

    shapes: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, shapes: Iterable[Sequence[int]]) -> Layout:
        """Lay parameters of these shapes one after another."""
        fixed = tuple(tuple(shape) for shape in shapes)
        starts: list[int] = []
        end = 0
        for shape in fixed:
            starts.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
            end = starts[-1] + math.prod(shape)
        return cls(fixed, tuple(starts), end)

    def views(self, vector: Tensor) -> list[Tensor]:
        """A contiguous view for each parameter, over the vector's own memory."""
        if vector.shape != (self.size,) or vector.dtype != torch.float32 or not vector.is_contiguous():
            found = f"{'' if vector.is_contiguous() else 'strided '}{vector.dtype} of {tuple(vector.shape)}"
            raise ProtocolError(f"a replica needs a contiguous torch.float32 vector of ({self.size},), not {found}")
        if vector.data_ptr() % ALIGNMENT_BYTES:
            raise ProtocolError(f"a replica's vector must start at a {ALIGNMENT_BYTES}-byte boundary")
        placed = zip(self.shapes, self.starts, strict=True)
        return [vector[start : start + math.prod(shape)].view(shape) for shape, start in placed]
