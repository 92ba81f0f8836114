"""A worker's replica: its flat vectors, the arithmetic on them, and every count that outlives a round.

All arithmetic of a worker program is here; where the vectors live is the backend's choice. P is the length of the flat
parameter vector, padding included. Three ways to make an update share the methods `adopt` and `measure`:

- `Delta`: what local training changed since the fetch. The center itself is the anchor, so it costs no third vector.
- `AnchoredDelta`: the same when n_fetch and n_push differ. The anchor marks from where work is not yet pushed; a fetch
  in between folds the work done so far into the update, so nothing is pushed twice and nothing is lost.
- `GradientSum`: the sum of the minibatch gradients, which the learner accumulates while it trains (Downpour's
  "accrued gradients", Dean et al. 2012, Algorithm 1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.messages import PushRequest


class Vectors(Protocol):
    """The flat float32 vectors of one replica and how an update is made from them."""

    params: Tensor  # (P,)
    center: Tensor  # (P,) the server's parameters as fetched; read only
    update: Tensor  # (P,) what the next push carries

    @property
    def gradients(self) -> Tensor | None:
        """(P,) to which the learner adds each minibatch's gradient, where their sum is pushed."""

    @property
    def in_place(self) -> bool:
        """Whether `update` may be the same memory as `params`: measuring then turns one into the other."""

    def adopt(self, pending: bool) -> None:
        """Go on from the center; `pending` says that work since the last push exists and must be kept."""

    def measure(self) -> None:
        """Write into `update` all work since the last push."""

    def discard(self) -> None:
        """Forget all work since the last push; the next `adopt` goes on from the center."""

    def kept(self) -> list[Tensor]:
        """The vectors that hold work which is not pushed yet, between two rounds."""

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Hold again what another's `kept` gave."""


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
        """Nothing: a fetch overwrites the parameters."""

    def kept(self) -> list[Tensor]:
        """None: a fetch finds all pushed."""
        return []

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Nothing."""


class AnchoredDelta:
    """update = the sum of params - anchor over all stretches since the last push, for n_fetch != n_push."""

    gradients = None
    in_place = False
    __slots__ = ("_folded", "anchor", "center", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update
        self.anchor = torch.zeros_like(params)
        self._folded = False  # does the update already hold a stretch?

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
        """Neither this stretch nor those that are folded."""
        self._folded = False

    def kept(self) -> list[Tensor]:
        """The stretch that ended last, and those before it, if there are any."""
        return [self.params, self.anchor, *([self.update] if self._folded else [])]

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Hold them again."""
        for mine, saved in zip((self.params, self.anchor, self.update), kept, strict=False):
            mine.copy_(saved)
        self._folded = len(kept) == 3

    def _fold(self) -> None:
        if self._folded:  # the anchor is free here: both callers set it anew
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
        """params <- center; gradients that are not pushed yet stay."""
        self.params.copy_(self.center)

    def measure(self) -> None:
        """Update <- gradients, gradients <- 0."""
        self.update.copy_(self.gradients)
        self.gradients.zero_()

    def discard(self) -> None:
        """Gradients <- 0."""
        self.gradients.zero_()

    def kept(self) -> list[Tensor]:
        """The sum so far."""
        return [self.gradients]

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Hold it again."""
        if kept:
            self.gradients.copy_(kept[0])


class Shared:
    """No copies: the parameters are the server's own vector, which everybody changes in place (Niu et al. 2011)."""

    gradients = None
    in_place = True
    __slots__ = ("center", "params", "update")

    def __init__(self, params: Tensor, center: Tensor, update: Tensor) -> None:
        self.params, self.center, self.update = params, center, update

    def adopt(self, pending: bool) -> None:
        """Nothing: whatever the others have written is there already."""

    def measure(self) -> None:
        """Nothing: the work is where it belongs."""

    def discard(self) -> None:
        """Nothing: what was written cannot be taken back."""

    def kept(self) -> list[Tensor]:
        """Nothing."""
        return []

    def restore(self, kept: Sequence[Tensor]) -> None:
        """Nothing."""


class Replica:
    """One worker's copy of the model and its place in the run. Without `vectors` it only counts (timing-only tasks)."""

    __slots__ = (
        "_arriving",
        "_error_sum",
        "_loss_sum",
        "after_adopt",
        "base",
        "bases",
        "buffer",
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
    ) -> None:
        self.worker = worker
        self.vectors = vectors
        self.after_adopt = after_adopt  # e.g. the local optimizer's reset of its momentum
        self.updates = updates  # (P,) each: the buffers that pushes leave from in turn, where there are several
        self.size_bytes = size_bytes  # of an update on the wire
        self.buffer = 0  # the one of `updates` that the next push leaves from
        self.incarnation = 1
        self.version = 0  # of the center
        self.granted = 0  # minibatches left until the next fetch
        self.steps = 0  # minibatches of the next Train
        self.minibatches = 0  # taken since the start: the cursor of the data order
        self.unpushed = 0  # minibatches since the last measure
        self.base = 0  # version of the oldest center that the unpushed work started from
        self.versions: tuple[int, ...] = ()  # of the center's slices, where independent servers keep them
        self.bases: tuple[int, ...] = ()  # of the slices of that oldest center
        self.sequence = 0  # pushes made
        self._loss_sum = 0.0
        self._error_sum = 0.0
        self._arriving: PushRequest | None = None

    def grant(self, version: int, steps: int) -> None:
        """The backend's word that a fetch is done: the center is `version`, `steps` minibatches may follow."""
        self.version = version
        self.granted = self.steps = steps

    def adopt(self) -> None:
        """params <- center, keeping work that is not pushed yet."""
        if not self.unpushed:
            self.base, self.bases = self.version, self.versions
        if self.vectors is not None:
            self.vectors.adopt(self.unpushed > 0)
        if self.after_adopt is not None:
            self.after_adopt()

    def trained(self, loss_sum: float, error_sum: float) -> None:
        """The backend's word that a Train is done, with the sums of the minibatches' losses and errors."""
        self.granted -= self.steps
        self.unpushed += self.steps
        self.minibatches += self.steps
        self._loss_sum += loss_sum
        self._error_sum += error_sum

    def stopped(self, taken: int) -> tuple[int, int]:
        """The lease was stopped `taken` minibatches into this Train: work that is not pushed is void.

        The cursor of the data order and the local optimizer stay where they are. The minibatches taken in vain, and all
        that were leased and that no push will carry.
        """
        wasted, returned = self.unpushed + taken, self.unpushed + self.granted
        self.minibatches += taken
        self.granted = self.steps = self.unpushed = 0
        self._loss_sum = self._error_sum = 0.0
        if self.vectors is not None:
            self.vectors.discard()
        return wasted, returned

    def measure(self) -> None:
        """update <- all work since the last push, which from here on counts as pushed."""
        if not self.unpushed:
            raise ProtocolError(f"worker {self.worker} has nothing to push; after a stop its program fetches again")
        if self.vectors is not None:
            self.vectors.measure()
        self.sequence += 1
        steps = self.unpushed
        self._arriving = PushRequest(
            self.worker, self.incarnation, self.sequence, self.base, steps, self._loss_sum / steps,
            self._error_sum / steps, self.buffer, size_bytes=self.size_bytes, bases=self.bases,
        )  # fmt: skip
        self.unpushed = 0
        self.base, self.bases = self.version, self.versions
        self._loss_sum = self._error_sum = 0.0

    def turn(self, buffer: int) -> None:
        """Make the next update in another buffer."""
        self.buffer = buffer
        if self.vectors is not None and self.updates:
            self.vectors.update = self.updates[buffer]

    def place(self) -> tuple[list[int], list[float]]:
        """Where it is in the run, between two rounds: all of it that is not a tensor."""
        whole = [self.incarnation, self.sequence, self.minibatches, self.unpushed, self.version, self.base]
        return whole, [self._loss_sum, self._error_sum]

    def resume(self, whole: Sequence[int], sums: Sequence[float]) -> None:
        """Be where another replica of the same worker was."""
        self.incarnation, self.sequence, self.minibatches, self.unpushed, self.version, self.base = whole
        self._loss_sum, self._error_sum = sums

    def arriving(self) -> PushRequest:
        """What a Push tells the server about the last measured update."""
        assert self._arriving is not None, "a program measures before it pushes"
        return self._arriving
