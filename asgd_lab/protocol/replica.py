"""A worker's replica: its place in the run, and every count that outlives a round; its vectors are in `vectors`.

All arithmetic of a worker program is here and there. P is the length of the flat parameter vector, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.codecs import Codec
from asgd_lab.protocol.messages import ALL, NO_PART, PushRequest, new
from asgd_lab.protocol.parts import spans
from asgd_lab.protocol.vectors import InSpans, Vectors


@dataclass(slots=True, eq=False)
class Place:
    """A replica's place in one part of a divided vector."""

    span: slice
    size_bytes: int  # of the part on the wire, as it is
    version: int = 0  # of the center
    base: int = 0  # of the oldest center in the unpushed work
    unpushed: int = 0  # minibatches since the last measure
    loss_sum: float = 0.0
    error_sum: float = 0.0
    arriving: PushRequest | None = None

    def trained(self, steps: int, loss_sum: float, error_sum: float) -> None:
        """Count the minibatches of a Train."""
        self.unpushed += steps
        self.loss_sum += loss_sum
        self.error_sum += error_sum

    def pushed(self) -> None:
        """Begin a new update."""
        self.base, self.unpushed = self.version, 0
        self.loss_sum = self.error_sum = 0.0


_UNDIVIDED: list[Place] = []  # one for all replicas of an undivided vector


class Replica:
    """One worker's copy of the model, and its counts. Without `vectors` it only counts (timing-only tasks)."""

    __slots__ = (
        "_arriving",
        "_error_sum",
        "_loss_sum",
        "after_adopt",
        "base",
        "buffer",
        "codec",
        "codec_state",
        "granted",
        "incarnation",
        "minibatches",
        "parts",
        "sequence",
        "size_bytes",
        "steps",
        "unpushed",
        "updates",
        "vectors",
        "version",
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
        parts: int = 0,
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
        self.parts = _UNDIVIDED  # the replica's place in each, if the vector is divided
        if parts:
            sizes = spans(size_bytes, parts)
            found = sizes if vectors is None else spans(vectors.params.numel(), parts)
            self.parts = [Place(span, size.stop - size.start) for span, size in zip(found, sizes, strict=True)]
        self.buffer = 0  # the index in `updates` of the next push
        self.incarnation = 1
        self.version = 0  # of the center
        self.granted = 0  # minibatches left until the next fetch
        self.steps = 0  # minibatches of the next Train
        self.minibatches = 0  # taken since the start: the cursor of the data order
        self.unpushed = 0  # minibatches since the last measure
        self.base = 0  # version of the oldest center in the unpushed work
        self.sequence = 0  # pushes made
        self._loss_sum = 0.0
        self._error_sum = 0.0
        self._arriving: PushRequest | None = None

    def grant(self, version: int, steps: int) -> None:
        """A fetch is done: the center is `version`, and `steps` minibatches may follow."""
        self.version = version
        self.granted = self.steps = steps

    def grant_part(self, part: int, version: int, steps: int, lease: bool) -> None:
        """The same for a lease alone, for the whole vector without a lease, and for one part."""
        if part >= 0:
            self.parts[part].version = version
        if part == ALL or part == 0:
            self.version = version
        if lease:
            self.granted = self.steps = steps if part != NO_PART else self.granted + steps

    def receive(self, part: int, vector: Tensor) -> None:
        """Center <- a granted version: the memory of the whole vector, or a copy of one part, which is (its span)."""
        if self.vectors is None:
            return
        if part == ALL:
            self.vectors.center = vector
        else:
            self.vectors.center[self.parts[part].span].copy_(vector)

    def adopt(self) -> None:
        """params <- center, keeping unpushed work."""
        if not self.unpushed:
            self.base = self.version
        if self.parts:
            for place in self.parts:
                if not place.unpushed:
                    place.base = place.version
        if self.vectors is not None:
            self.vectors.adopt(self.unpushed > 0)
        if self.after_adopt is not None:
            self.after_adopt()

    def trained(self, loss_sum: float, error_sum: float) -> None:
        """A Train is done, with the sums of the minibatches' losses and errors."""
        steps = self.steps
        self.granted -= steps
        self.unpushed += steps
        self.minibatches += steps
        self._loss_sum += loss_sum
        self._error_sum += error_sum
        if self.parts:
            for place in self.parts:
                place.trained(steps, loss_sum, error_sum)

    def stopped(self, taken: int) -> tuple[int, int]:
        """The lease was stopped `taken` minibatches into this Train: in each part, work not pushed to it is void.

        The cursor of the data order and the local optimizer stay. Returns the wasted minibatches, which were taken and
        not pushed to all parts, and all leased ones that will not be pushed to all parts, the wasted ones included.
        """
        wasted, returned = self.unpushed + taken, self.unpushed + self.granted
        self.minibatches += taken
        self.granted = self.steps = self.unpushed = 0
        self._loss_sum = self._error_sum = 0.0
        for place in self.parts:
            place.pushed()
        if self.vectors is not None:
            self.vectors.discard()
        return wasted, returned

    def measure(self, part: int = ALL) -> None:
        """update <- all work since the last push, which now counts as pushed: of the whole vector, or of one part."""
        if self.parts or part != ALL:
            self._measure_parts(part)
            return
        steps = self.unpushed
        if not steps:
            raise self._nothing()
        size_bytes = self.size_bytes
        if self.vectors is not None:
            self.vectors.measure()
        if self.codec is not None:
            size_bytes = self._encoded(slice(None), size_bytes)
        self.sequence += 1
        self._arriving = new(PushRequest, (
            self.worker, self.incarnation, self.sequence, self.base, steps, self._loss_sum / steps,
            self._error_sum / steps, self.buffer, ALL, size_bytes, 0, 0, 0,
        ))  # fmt: skip
        self.unpushed = 0
        self.base = self.version
        self._loss_sum = self._error_sum = 0.0

    def merge(
        self,
        part: int,
        own: float,
        center: float,
        progress: float = 0.0,
        anchor: Literal["center", "params"] = "center",
    ) -> None:
        """params <- own * params + center * center + progress * (params - anchor), in one part.

        The anchor is where it was put last: at a push, the parameters; so the progress is that since the push.
        The next update of this part is measured against the `anchor`: the center as fetched, or the merged parameters.
        The vectors must have single parts, as `Anchored`.
        """
        place = self.place_in(part)
        place.base = place.version
        if self.vectors is not None:
            self._in_spans().merge(place.span, own, center, progress, anchor)

    def _measure_parts(self, part: int) -> None:
        """Measure one part, or all of them."""
        if not (self.unpushed if part == ALL else self.place_in(part).unpushed):
            raise self._nothing()
        self.sequence += 1
        if self.vectors is not None:
            if part == ALL:
                self.vectors.measure()
            else:
                self._in_spans().measure_span(self.parts[part].span)
        for each in range(len(self.parts)) if part == ALL else (part,):
            self._arriving_of(each)
        self.unpushed = max(place.unpushed for place in self.parts)
        if not self.unpushed:
            self.base = self.version

    def place_in(self, part: int) -> Place:
        """The place in one part; ProtocolError if there is no such part."""
        if not 0 <= part < len(self.parts):
            has = f"has {len(self.parts)} parts" if self.parts else "is undivided"
            raise ProtocolError(f"worker {self.worker} names part {part}, and the vector {has}")
        return self.parts[part]

    def _in_spans(self) -> InSpans:
        """The vectors, if they have updates of single parts; else ProtocolError."""
        if not isinstance(self.vectors, InSpans):
            raise ProtocolError(f"{type(self.vectors).__name__} has no updates of single parts; use Anchored")
        return self.vectors

    def _nothing(self) -> ProtocolError:
        return ProtocolError(f"worker {self.worker} has nothing to push; after a stop its program fetches again")

    def _arriving_of(self, part: int) -> None:
        """Make the push request of one part."""
        place, steps = self.parts[part], self.parts[part].unpushed
        size_bytes = place.size_bytes if self.codec is None else self._encoded(place.span, place.size_bytes)
        place.arriving = PushRequest(
            self.worker, self.incarnation, self.sequence, place.base, steps, place.loss_sum / steps,
            place.error_sum / steps, self.buffer, part, size_bytes,
        )  # fmt: skip
        place.pushed()

    def _encoded(self, span: slice, size_bytes: int) -> int:
        """The bytes of that span of the update on the wire, after the codec's loss."""
        assert self.codec is not None
        if self.vectors is None:
            found = self.codec.size_bytes(size_bytes // 4)
        else:
            found = self.codec.encode(self.vectors.update[span], [state[span] for state in self.codec_state])
        if type(found) is not int or found < 0:
            raise ProtocolError(f"the bytes of {self.codec!r} must be a whole number, 0 at least; got {found!r}")
        return found

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

    def arriving(self, part: int = ALL) -> PushRequest:
        """The push request of the last measured update."""
        arriving = self._arriving if part == ALL else self.parts[part].arriving
        assert arriving is not None, "a program measures before it pushes"
        return arriving
