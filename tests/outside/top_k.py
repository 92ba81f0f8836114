"""Top-k sparsification with error feedback (Stich et al. 2018, arXiv:1809.07599, Algorithm 1)."""

from collections.abc import Sequence

from torch import Tensor

from asgd_lab import extending as lab


class Sparse(lab.Codec):
    share: float
    vectors = 1

    def encode(self, update: Tensor, state: Sequence[Tensor]) -> int:
        (error,) = state
        error.add_(update)
        largest = error.abs().topk(self._count(update.numel())).indices
        update.zero_()
        update[largest] = error[largest]
        error[largest] = 0.0
        return self.size_bytes(update.numel())

    def size_bytes(self, elements: int) -> int:
        """An index and a value for each that is sent."""
        return 8 * self._count(elements)

    def _count(self, elements: int) -> int:
        return min(elements, max(1, round(self.share * elements)))


class TopK(lab.Compression):
    """e <- e + u; sends the largest `share` of e; e <- e - what was sent."""

    share: float = 0.01

    def build(self) -> lab.Codec:
        return Sparse(self.share)
