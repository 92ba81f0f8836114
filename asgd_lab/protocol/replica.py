"""A worker's replica: its flat vectors, the arithmetic on them, and every count that outlives a round.

All arithmetic of a worker program is here; the backend chooses the memory of the vectors. P is the length of the flat
parameter vector, padding included. Three ways to make an update share the methods `adopt` and `measure`:

- `Delta`: the change of the parameters since the fetch. The center itself is the anchor, so no third vector is needed.
- `AnchoredDelta`: the same when n_fetch and n_push differ. The anchor marks the start of the work not yet pushed; a
  fetch in between folds the work so far into the update, so no work is pushed twice and none is lost.
- `GradientSum`: the sum of the minibatch gradients, which the learner accumulates while it trains (Downpour's
  "accrued gradients", Dean et al. 2012, Algorithm 1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.codecs import Codec
from asgd_lab.protocol.messages import ALL, PushRequest


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
        """Discard all work since the last push; the next `adopt` continues from the center."""

    def kept(self) -> list[Tensor]:
        """The vectors that hold unpushed work between two rounds."""

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Restore the vectors from another's `kept`."""


class Delta:
    """update = params - center, for n_fetch = n_push."""

    gradients = None
    in_place = True
    __slots__ = ("center", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update

    def adopt(self, pending: bool) -> None:
        """params <- center."""
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
        """Gradients <- 0."""
        self.gradients.zero_()

    def kept(self) -> list[Tensor]:
        """The sum of the gradients so far."""
        return [self.gradients]

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Restore the sum."""
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


class Replica:
    """One worker's copy of the model, and its counts. Without `vectors` it only counts (timing-only tasks)."""

    __slots__ = (
        "_arriving",
        "_error_sum",
        "_loss_sum",
        "after_adopt",
        "base",
        "bases",
        "buffer",
        "codec",
        "codec_state",
        "granted",
        "incarnation",
        "minibatches",
        "sequence",
        "size_bytes",
        "steps",
        "unpushed",
        "updates",
        "vectors",
        "version",
        "versions",
        "worker",
    )

    def __init__(
        self,
        worker: int,
        vectors: Vectors | None = None,
        after_adopt: Callable[[], None] | None = None,
        updates: Sequence[Tensor] = (),
        size_bytes: int = 0,
        codec: Codec | None = None,
    ) -> None:
        self.worker = worker
        self.vectors = vectors
        self.after_adopt = after_adopt  # e.g. the local optimizer's reset of its momentum
        self.updates = updates  # (P,) each: the buffers of pushes, used in turn if there are several
        self.size_bytes = size_bytes  # of an update on the wire, as it is
        self.codec = codec
        self.codec_state: list[Tensor] = []  # (P,) each, which the codec keeps
        if codec is not None and vectors is not None:
            self.codec_state = [torch.zeros_like(vectors.update) for _ in range(codec.vectors)]
        self.buffer = 0  # the index in `updates` of the next push
        self.incarnation = 1
        self.version = 0  # of the center
        self.granted = 0  # minibatches left until the next fetch
        self.steps = 0  # minibatches of the next Train
        self.minibatches = 0  # taken since the start: the cursor of the data order
        self.unpushed = 0  # minibatches since the last measure
        self.base = 0  # version of the oldest center in the unpushed work
        self.versions: tuple[int, ...] = ()  # of the center's slices, with independent servers
        self.bases: tuple[int, ...] = ()  # of the slices of that oldest center
        self.sequence = 0  # pushes made
        self._loss_sum = 0.0
        self._error_sum = 0.0
        self._arriving: PushRequest | None = None

    def grant(self, version: int, steps: int) -> None:
        """A fetch is done: the center is `version`, and `steps` minibatches may follow."""
        self.version = version
        self.granted = self.steps = steps

    def adopt(self) -> None:
        """params <- center, keeping unpushed work."""
        if not self.unpushed:
            self.base, self.bases = self.version, self.versions
        if self.vectors is not None:
            self.vectors.adopt(self.unpushed > 0)
        if self.after_adopt is not None:
            self.after_adopt()

    def trained(self, loss_sum: float, error_sum: float) -> None:
        """A Train is done, with the sums of the minibatches' losses and errors."""
        self.granted -= self.steps
        self.unpushed += self.steps
        self.minibatches += self.steps
        self._loss_sum += loss_sum
        self._error_sum += error_sum

    def stopped(self, taken: int) -> tuple[int, int]:
        """The lease was stopped `taken` minibatches into this Train: unpushed work is void.

        The cursor of the data order and the local optimizer stay. Returns the wasted minibatches, and all leased ones
        that no push will carry.
        """
        wasted, returned = self.unpushed + taken, self.unpushed + self.granted
        self.minibatches += taken
        self.granted = self.steps = self.unpushed = 0
        self._loss_sum = self._error_sum = 0.0
        if self.vectors is not None:
            self.vectors.discard()
        return wasted, returned

    def measure(self) -> None:
        """update <- all work since the last push, which now counts as pushed."""
        if not self.unpushed:
            raise ProtocolError(f"worker {self.worker} has nothing to push; after a stop its program fetches again")
        size_bytes = self.size_bytes
        if self.vectors is not None:
            self.vectors.measure()
            if self.codec is not None:
                size_bytes = self.codec.encode(self.vectors.update, self.codec_state)
        elif self.codec is not None:
            size_bytes = self.codec.size_bytes(size_bytes // 4)
        self.sequence += 1
        steps = self.unpushed
        self._arriving = PushRequest(  # by position, which costs half of what names do
            self.worker, self.incarnation, self.sequence, self.base, steps, self._loss_sum / steps,
            self._error_sum / steps, self.buffer, ALL, size_bytes, 0, 0, 0, self.bases,
        )  # fmt: skip
        self.unpushed = 0
        self.base, self.bases = self.version, self.versions
        self._loss_sum = self._error_sum = 0.0

    def turn(self, buffer: int) -> None:
        """Use another buffer for the next update."""
        self.buffer = buffer
        if self.vectors is not None and self.updates:
            self.vectors.update = self.updates[buffer]

    def place(self) -> tuple[list[int], list[float]]:
        """The replica's counts and sums between two rounds: all state except tensors."""
        whole = [self.incarnation, self.sequence, self.minibatches, self.unpushed, self.version, self.base]
        return whole, [self._loss_sum, self._error_sum]

    def resume(self, whole: Sequence[int], sums: Sequence[float]) -> None:
        """Restore the `place` of another replica of the same worker."""
        self.incarnation, self.sequence, self.minibatches, self.unpushed, self.version, self.base = whole
        self._loss_sum, self._error_sum = sums

    def arriving(self) -> PushRequest:
        """The push request of the last measured update."""
        assert self._arriving is not None, "a program measures before it pushes"
        return self._arriving
