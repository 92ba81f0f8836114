"""A worker's replica: its place in the run, and every count that outlives a round; its vectors are in `vectors`.

All arithmetic of a worker program is here and there. P is the length of the flat parameter vector, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.codecs import Codec
from asgd_lab.protocol.messages import ALL, PushRequest, new
from asgd_lab.protocol.vectors import Vectors


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
        self._arriving = new(PushRequest, (
            self.worker, self.incarnation, self.sequence, self.base, steps, self._loss_sum / steps,
            self._error_sum / steps, self.buffer, ALL, size_bytes, 0, 0, 0, self.bases,
        ))  # fmt: skip
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
