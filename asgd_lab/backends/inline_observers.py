"""Listeners to an inline run: the base, and one that keeps the run's tables and counts."""

from __future__ import annotations

from collections.abc import Sequence

from asgd_lab.backends.run_end import RunEnd
from asgd_lab.protocol.client import Step
from asgd_lab.protocol.effects import Train
from asgd_lab.protocol.messages import (
    DROPPED,
    KEPT,
    NOWHERE,
    Ack,
    Answer,
    FetchRequest,
    Grant,
    Leave,
    Message,
    PushRequest,
)
from asgd_lab.protocol.parts import sizes
from asgd_lab.protocol.replica import Replica
from asgd_lab.record.columns import KINDS
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics

APPLY = KINDS.index("apply")


class Observer:
    """A listener to a run: subclasses override any of these methods."""

    def step(self, worker: int, step: Step) -> None:
        """Called with a client's next step, before it is carried out."""

    def heard(self, message: Message, in_time: bool, answers: Sequence[Answer]) -> None:
        """Called with each message to the server, `in_time` if it was not closed before, and its answers."""

    def answered(self, worker: int, answer: Answer) -> None:
        """Called with each answer of the server."""

    def minibatch(self, replica: Replica, step: int, loss: float, error: float) -> None:
        """Called after each minibatch."""


class Book(Observer):
    """A listener that keeps a run's tables and counts; its time is the number of steps so far, in nanoseconds."""

    def __init__(self, record: RunDirectory, workers: int, size_bytes: int, parts: int) -> None:
        self.record, self._fetched = record, sizes(size_bytes, parts)
        self.statistics = Statistics(workers)
        self.now, self.end = 0, RunEnd()
        self._begun: dict[tuple[int, str], int] = {}
        self._pushes: dict[int, int] = {}  # each worker's last push
        # Bytes of pushes that have not ended, and the pushes that are kept, by worker, number and part.
        self._sizes: dict[tuple[int, ...], int] = {}
        self._kept: set[tuple[int, ...]] = set()

    def step(self, worker: int, step: Step) -> None:
        """Note the start of an effect."""
        if isinstance(step, Leave):
            return
        self.now += 1
        if isinstance(step, Train):
            self._begun[worker, "train"] = self.now
            replica = step.replica
            self._note(replica, "train", replica.sequence + 1, replica.version, -1, replica.steps, 0)
        elif isinstance(step, FetchRequest):
            self._begun[worker, "fetch"] = self.now
        elif isinstance(step, PushRequest):
            self._begun[worker, "push"] = self.now
            self._pushes[worker] = step.number
            self._sizes[worker, step.number, step.part] = step.size_bytes

    def heard(self, message: Message, in_time: bool, answers: Sequence[Answer]) -> None:
        self.end.note(message, in_time, self.now, answers)

    def answered(self, worker: int, answer: Answer) -> None:
        """Note the end of a fetch or a push."""
        if isinstance(answer, Grant):
            size = self._fetched[answer.part] if answer.slot != NOWHERE else 0
            self._note(answer, "fetch", self._pushes.get(worker, 0) + 1, answer.version, -1, answer.steps, size)
        elif isinstance(answer, Ack):
            push = worker, answer.number, answer.part
            if answer.version == KEPT:
                size = self._sizes[push]
                self._note(answer, "push", answer.number, KEPT, answer.staleness, answer.steps, size)
                self._kept.add(push)
                return
            size = self._sizes.pop(push)
            if answer.version == DROPPED:
                self.statistics.dropped(answer.steps)
            else:
                self.statistics.applied(answer.staleness, answer.steps)
                if answer.part >= 0:
                    self.statistics.applied_to_part(answer.part, answer.staleness)
            row = (-1, answer.number, APPLY, self.now, self.now, 0, answer.version, answer.staleness, answer.steps)
            if self.record.recording.keep_round(answer.number):
                self.record.effects.add((*row, size, max(0, answer.part), worker, answer.incarnation))
            if push in self._kept:  # its worker did not wait for this
                self._kept.remove(push)
                return
            self._note(answer, "push", answer.number, answer.version, answer.staleness, answer.steps, size)

    def minibatch(self, replica: Replica, step: int, loss: float, error: float) -> None:
        if self.record.recording.keep_round(replica.sequence + 1):
            self.record.minibatches.add((replica.worker, step, self.now, loss, error))

    def _note(
        self, whose: Replica | Grant | Ack, what: str, round: int, version: int, staleness: int, steps: int, size: int
    ) -> None:
        if self.record.recording.keep_round(round):
            begun, worker = self._begun[whose.worker, what], whose.worker
            row = (worker, round, KINDS.index(what), begun, self.now, 0, version, staleness, steps, size)
            part = -1 if isinstance(whose, Replica) else max(-1, whose.part)
            self.record.effects.add((*row, part, worker, whose.incarnation))
