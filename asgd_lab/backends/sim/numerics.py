"""When a worker's minibatches are computed: each round for itself when its time is over, or many rounds together.

What a worker computes between fetch and push depends on nothing else. So it may be computed any time before its push is
due; when a result is needed that is not there, all rounds that are pending are advanced in one batched call. Batched
results are the same bytes for the same seed, close to the sequential ones, and not their bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgd_lab.backends.build import Worker

if TYPE_CHECKING:
    from asgd_lab.tasks.base import Batch, Learner

Results = tuple[list[float], list[float]]
"""Losses and errors of a round's minibatches."""


class Computation:
    """One round's minibatches, which end at `ends_ns` from their common start."""

    __slots__ = ("_batched", "_found", "ends_ns", "first", "learner")

    def __init__(self, worker: Worker, ends_ns: list[int], batched: Batched | None) -> None:
        self.learner: Learner = worker.learner
        self.first, self.ends_ns = worker.replica.minibatches, ends_ns
        self._batched = batched
        self._found: Results | None = None

    def results(self) -> Results:
        """Computed by now; afterwards the replica's parameters are those of the end of the round."""
        if self._batched is not None:
            if self._found is None:
                self._batched.advance()
            assert self._found is not None
            return self._found
        losses, errors = [], []
        minibatch = self.learner.minibatch
        for step in range(self.first, self.first + len(self.ends_ns)):
            loss, error = minibatch(step)
            losses.append(loss)
            errors.append(error)
        return losses, errors

    def found(self, results: Results) -> None:
        """Computed with others."""
        self._found = results

    def forget(self) -> None:
        """Its worker is gone."""
        if self._batched is not None:
            self._batched.pending.pop(self, None)


class Sequential:
    """Each round for itself."""

    def begin(self, worker: Worker, ends_ns: list[int]) -> Computation:
        """A round has begun, with as many minibatches as have ends."""
        return Computation(worker, ends_ns, None)


class Batched:
    """All pending rounds together."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.pending: dict[Computation, None] = {}  # in the order in which they began

    def begin(self, worker: Worker, ends_ns: list[int]) -> Computation:
        """A round has begun, with as many minibatches as have ends."""
        computation = Computation(worker, ends_ns, self)
        self.pending[computation] = None
        return computation

    def advance(self) -> None:
        """Compute all that is pending."""
        rounds = list(self.pending)
        self.pending.clear()
        found = self._batch.advance([(each.learner, each.first, len(each.ends_ns)) for each in rounds])
        for each, results in zip(rounds, found, strict=True):
            each.found(results)
