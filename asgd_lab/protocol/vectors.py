"""A replica's flat vectors, and five ways to make an update of them, which share the methods `adopt` and `measure`.

- `Delta`: the change of the parameters since the fetch. The center itself is the anchor, so no third vector is needed.
- `AnchoredDelta`: the same when n_fetch and n_push differ. The anchor marks the start of the work not yet pushed; a
  fetch in between folds the work so far into the update, so no work is pushed twice and none is lost.
- `Anchored`: the change since an anchor that the program chooses, in single parts; for fetches that merge.
- `GradientSum`: the sum of the minibatch gradients, which the learner accumulates while it trains (Downpour's
  "accrued gradients", Dean et al. 2012, Algorithm 1.1).
- `Shared`: none; all workers change one vector.

The backend chooses their memory. P is the length of the flat parameter vector, padding included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor


class Vectors(Protocol):
    """The flat float32 vectors of one replica and how an update is made from them."""

    params: Tensor  # (P,)
    center: Tensor  # (P,) the server's parameters as fetched; read only
    update: Tensor  # (P,) the content of the next push

    @property
    def gradients(self) -> Tensor | None:
        """(P,) the learner adds each minibatch's gradient to it, if their sum is pushed; else None."""

    @property
    def in_place(self) -> bool:
        """Whether `update` may be the same memory as `params`: measuring then turns one into the other."""

    def adopt(self, pending: bool) -> None:
        """Continue from the center; with `pending`, work since the last push exists and must be kept."""

    def measure(self) -> None:
        """Write into `update` all work since the last push."""

    def discard(self) -> None:
        """Discard all work since the last push; the program continues from an anchor, or adopts the next center."""

    def kept(self) -> list[Tensor]:
        """The vectors that hold unpushed work between two rounds."""

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Restore the vectors from another's `kept`."""


@runtime_checkable
class InSpans(Vectors, Protocol):
    """Vectors whose updates and fetches may be of one span."""

    def measure_span(self, span: slice) -> None:
        """Write into `update` all work in this span since the last push."""

    def merge(
        self, span: slice, own: float, center: float, progress: float, anchor: Literal["center", "params"]
    ) -> None:
        """Mix the center, as fetched, with the parameters of this span; see `Replica.merge`."""


class Delta:
    """update = params - center, for n_fetch = n_push."""

    gradients = None
    in_place = True
    __slots__ = ("center", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update

    def adopt(self, pending: bool) -> None:
        """Let params <- center."""
        self.params.copy_(self.center)

    def measure(self) -> None:
        """Update <- params - center."""
        torch.sub(self.params, self.center, out=self.update)

    def discard(self) -> None:
        """Do nothing: a fetch overwrites the parameters."""

    def kept(self) -> list[Tensor]:
        """None: at a fetch all work is pushed."""
        return []

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Do nothing."""


class AnchoredDelta:
    """update = the sum of params - anchor over all stretches since the last push, for n_fetch != n_push."""

    gradients = None
    in_place = False
    __slots__ = ("_folded", "anchor", "center", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update
        self.anchor = torch.zeros_like(params)
        self._folded = False  # does the update already contain a stretch?

    def adopt(self, pending: bool) -> None:
        """Fold the stretch that ends here into the update, then params, anchor <- center."""
        if pending:
            self._fold()
        self.params.copy_(self.center)
        self.anchor.copy_(self.center)

    def measure(self) -> None:
        """Fold the last stretch into the update, then anchor <- params."""
        self._fold()
        self._folded = False
        self.anchor.copy_(self.params)

    def discard(self) -> None:
        """Discard this stretch and the folded ones."""
        self._folded = False

    def kept(self) -> list[Tensor]:
        """Parameters and anchor of the last stretch, and the folded stretches if there are any."""
        return [self.params, self.anchor, *([self.update] if self._folded else [])]

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Restore the vectors from another's `kept`."""
        for mine, saved in zip((self.params, self.anchor, self.update), kept, strict=False):
            mine.copy_(saved)
        self._folded = len(kept) == 3

    def _fold(self) -> None:
        if self._folded:  # the anchor may be overwritten here: both callers set it afterwards
            self.update.add_(torch.sub(self.params, self.anchor, out=self.anchor))
        else:
            torch.sub(self.params, self.anchor, out=self.update)
            self._folded = True


class Anchored:
    """update = params - anchor, in one part or in all. The anchor is kept apart from the parameters.

    A push moves it to the parameters, and a merge to the center as fetched or to the merged parameters.
    """

    gradients = None
    in_place = False
    __slots__ = ("anchor", "center", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update
        self.anchor = torch.zeros_like(params)

    def adopt(self, pending: bool) -> None:
        """Continue from the center alone; params, anchor <- center."""
        self.params.copy_(self.center)
        self.anchor.copy_(self.center)

    def measure(self) -> None:
        """Update <- params - anchor; anchor <- params."""
        self.measure_span(slice(None))

    def measure_span(self, span: slice) -> None:
        """The same for one span."""
        torch.sub(self.params[span], self.anchor[span], out=self.update[span])
        self.anchor[span].copy_(self.params[span])

    def merge(
        self, span: slice, own: float, center: float, progress: float, anchor: Literal["center", "params"]
    ) -> None:
        params, fetched, before = self.params[span], self.center[span], self.anchor[span]
        if progress:
            torch.sub(params, before, out=before)
        params.mul_(own).add_(fetched, alpha=center)
        if progress:
            params.add_(before, alpha=progress)
        before.copy_(fetched if anchor == "center" else params)

    def discard(self) -> None:
        """Discard all work since the last push of each part: params <- anchor."""
        self.params.copy_(self.anchor)

    def kept(self) -> list[Tensor]:
        """The vectors to keep: parameters and anchor."""
        return [self.params, self.anchor]

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Restore parameters and anchor."""
        for mine, saved in zip((self.params, self.anchor), kept, strict=False):
            mine.copy_(saved)


class GradientSum:
    """update = the sum of the gradients since the last push, which the learner adds to `gradients`."""

    in_place = False
    __slots__ = ("center", "gradients", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update
        self.gradients = torch.zeros_like(params)

    def adopt(self, pending: bool) -> None:
        """params <- center; unpushed gradients stay."""
        self.params.copy_(self.center)

    def measure(self) -> None:
        """Update <- gradients, gradients <- 0."""
        self.update.copy_(self.gradients)
        self.gradients.zero_()

    def discard(self) -> None:
        """Let the sum of gradients <- 0."""
        self.gradients.zero_()

    def kept(self) -> list[Tensor]:
        """The sum of the gradients so far."""
        return [self.gradients]

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Restore the sum of gradients."""
        if kept:
            self.gradients.copy_(kept[0])


class Shared:
    """No copies: the parameters are the server's own vector, which all workers change in place (Niu et al. 2011)."""

    gradients = None
    in_place = True
    __slots__ = ("center", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update

    def adopt(self, pending: bool) -> None:
        """Do nothing: the other workers' writes are visible already."""

    def measure(self) -> None:
        """Do nothing: the work is in the shared vector."""

    def discard(self) -> None:
        """Do nothing: writes to the shared vector cannot be undone."""

    def kept(self) -> list[Tensor]:
        return []

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Do nothing."""
