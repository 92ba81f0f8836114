"""The inline backend: workers take turns in a given order, in this process and without a clock. It is the reference.

One turn resumes one worker's program up to its next effect and submits that effect. Between turns anything may happen:
tests draw the turns, kill workers and let them join; a recorded run is re-executed by giving its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from asgd_lab.backends import devices, room
from asgd_lab.backends.build import (
    Worker,
    build_algorithm,
    build_budget,
    build_server,
    build_task,
    build_worker,
    initial_parameters,
)
from asgd_lab.backends.failing import logged, minibatch_failed
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.errors import ProtocolError, RunFailed
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.effects import Effect, Fetch, Push, Start, Train, Wait
from asgd_lab.protocol.grants import DROPPED, FetchGrant, Grant, PushGrant
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.server import Budget
from asgd_lab.record.columns import KINDS
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import Learner, Task

if TYPE_CHECKING:
    import pandas as pd

APPLY = KINDS.index("apply")

Observer = Callable[[int, Effect | Grant], None]


class Inline:
    """A run without time. `observe(worker, what)` hears of every effect when submitted and of every grant."""

    def __init__(
        self,
        task: Task,
        algorithm: Algorithm,
        budget: Budget,
        workers: int,
        initial: Tensor | None = None,
        observe: Observer | None = None,
        minibatch: Callable[[Replica, int, float, float], None] | None = None,
    ) -> None:
        self.task, self.algorithm = task, algorithm
        self.initial = task.initial() if initial is None else initial
        self.mailboxes: dict[int, Tensor] = {}
        self._shared = self.initial.clone() if algorithm.shared else None
        self.server = build_server(task, algorithm, budget, self.initial, self.mailboxes)
        self.workers: dict[int, Worker] = {}
        self.first: Learner | None = None  # of worker 0, also when it has left: evaluations take its buffers
        self._ahead: dict[int, FetchGrant | None] = {}  # started fetches, and what they were granted
        self.ready: set[int] = set()  # whose turn it may be; the others wait for a grant
        self._observe, self._minibatch = observe, minibatch
        for worker in range(workers):
            self.join(worker)

    @property
    def parameters(self) -> Tensor:
        """(P,) the server's newest version; empty for a task without parameters."""
        if self._shared is not None:
            return self._shared
        return self.server.parameters.current if self.server.parameters is not None else torch.empty(0)

    def join(self, worker: int) -> None:
        """Let a new incarnation of `worker` in. A mailbox outlives its owner: what lies in it may still be needed."""
        mailbox = self.mailboxes.setdefault(worker, torch.zeros_like(self.initial))
        self._ahead.pop(worker, None)
        self._deliver(self.server.on_join(worker))
        buffers = [mailbox, *(torch.zeros_like(mailbox) for _ in range(self.algorithm.depth - 1))]
        entry = build_worker(self.task, self.algorithm, worker, self.initial, buffers, self._shared)
        entry.replica.incarnation, entry.replica.sequence = self.server.standing(worker)
        entry.replica.minibatches = self.server.taken(worker)
        self.workers[worker] = entry
        if worker == 0:
            self.first = entry.learner
        self.ready.add(worker)

    def kill(self, worker: int) -> None:
        """`worker` is gone, wherever it was."""
        self.workers.pop(worker).program.close()
        self.ready.discard(worker)
        self._deliver(self.server.on_leave(worker))

    def turn(self, worker: int) -> None:
        """Resume `worker`'s program to its next effect, and begin that effect."""
        if worker not in self.ready:
            raise ProtocolError(f"it is not worker {worker}'s turn: it waits for a grant, or has left")
        entry = self.workers[worker]
        effect = next(entry.program, None)
        if effect is None:
            self.kill(worker)
            return
        if self._observe is not None:
            self._observe(worker, effect)
        if type(effect) is Train:
            loss_sum = error_sum = 0.0
            replica = entry.replica
            for step in range(replica.minibatches, replica.minibatches + replica.steps):
                try:
                    loss, error = entry.learner.minibatch(step)
                except Exception as raised:
                    raise minibatch_failed(worker, step, raised) from raised
                loss_sum += loss
                error_sum += error
                if self._minibatch is not None:
                    self._minibatch(replica, step, loss, error)
            replica.trained(loss_sum, error_sum)
        elif (
            type(effect) is Wait
        ):  # what is started here is done at once, but a fetch takes effect when it is waited for
            granted = self._ahead.pop(worker, None) if type(effect.effect) is Fetch else None
            if granted is not None:
                self._take(entry, granted)
        elif type(effect) is Start:
            if type(effect.effect) is Fetch:
                if worker in self._ahead:
                    raise ProtocolError(f"worker {worker} starts a fetch that it has started and not waited for")
                self._ahead[worker] = None
            self._begin(worker, effect.effect)
        else:
            self.ready.discard(worker)
            assert isinstance(effect, Fetch | Push)
            self._begin(worker, effect)

    def _begin(self, worker: int, effect: Fetch | Push) -> None:
        if type(effect) is Fetch:
            self._deliver(self.server.on_fetch(worker, worker in self._ahead))
        elif type(effect) is Push:
            replica = effect.replica
            if replica.updates:
                self.mailboxes[worker] = replica.updates[effect.buffer]
            self._deliver(self.server.on_push(replica.arriving()))

    def run(self, order: Iterable[int] | None = None) -> None:
        """Take the turns of `order`, which ends the run; without one, everybody in turn until all have left."""
        if order is not None:
            for worker in order:
                self.turn(worker)
            return
        while self.workers:
            if not self.ready:
                raise RunFailed(f"deadlock: workers {sorted(self.workers)} wait for a grant that never comes")
            for worker in sorted(self.ready):
                if worker in self.ready:
                    self.turn(worker)

    def _deliver(self, grants: list[Grant]) -> None:
        for grant in grants:
            if self._observe is not None:
                self._observe(grant.worker, grant)
            entry = self.workers.get(grant.worker)
            if entry is None:
                continue  # it died while its push was collected
            if type(grant) is PushGrant and grant.incarnation != entry.replica.incarnation:
                continue  # its earlier self did
            if type(grant) is FetchGrant:
                if grant.worker in self._ahead:
                    self._ahead[grant.worker] = grant
                    continue
                self._take(entry, grant)
            self.ready.add(grant.worker)

    def _take(self, entry: Worker, grant: FetchGrant) -> None:
        replica = entry.replica
        replica.grant(grant.version, grant.steps)
        if replica.vectors is not None and grant.steps and self.server.parameters is not None:
            replica.vectors.center = self.server.parameters.vector(self.server.parameters.pinned(grant.worker))


class _Book:
    """A run's tables and counts, kept by listening; time is the number of effects submitted so far, in nanoseconds."""

    def __init__(self, record: RunDirectory, workers: int, size_bytes: int) -> None:
        self.record, self.size_bytes = record, size_bytes
        self.statistics = Statistics(workers)
        self.now = self.end = 0
        self._begun: dict[tuple[int, type], tuple[int, Replica]] = {}

    def observe(self, worker: int, what: Effect | Grant) -> None:
        """An effect was submitted, or a grant was given."""
        if isinstance(what, FetchGrant):
            self._note(worker, Fetch, what.version, -1, what.steps, self.size_bytes if what.steps else 0)
        elif isinstance(what, PushGrant):
            if what.version == DROPPED:
                self.statistics.dropped(what.steps)
            else:
                self.statistics.applied(what.staleness, what.steps)
            self.end = self.now
            row = (-1, what.sequence, APPLY, self.now, self.now, 0, what.version, what.staleness, what.steps)
            if self.record.recording.keep_round(what.sequence):
                self.record.effects.add((*row, self.size_bytes, 0, what.worker, what.incarnation))
            self._note(worker, Push, what.version, what.staleness, what.steps, self.size_bytes)
        else:
            self.now += 1
            if isinstance(what, Wait):
                return
            what = what.effect if isinstance(what, Start) else what
            self._begun[worker, type(what)] = (self.now, what.replica)
            if isinstance(what, Train):
                self._note(worker, Train, what.replica.version, -1, what.replica.steps, 0)

    def minibatch(self, replica: Replica, step: int, loss: float, error: float) -> None:
        """A minibatch was taken."""
        if self.record.recording.keep_round(replica.sequence + 1):
            self.record.minibatches.add((replica.worker, step, self.now, loss, error))

    def _note(self, worker: int, what: type, version: int, staleness: int, steps: int, size: int) -> None:
        begun, replica = self._begun[worker, what]
        kind = KINDS.index(what.__name__.lower())
        round = replica.sequence + (what is not Push)
        if self.record.recording.keep_round(round):
            row = (worker, round, kind, begun, self.now, 0, version, staleness, steps, size, -1)
            self.record.effects.add((*row, worker, replica.incarnation))


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Run the scenario with everybody in turn. Its tables order effects; they time nothing."""
    task = build_task(scenario)
    room.check(scenario, task.size)
    initial = initial_parameters(scenario, task)
    record.begin()
    book = _Book(record, scenario.workers, task.size_bytes)
    lab = Inline(
        task,
        build_algorithm(scenario),
        build_budget(scenario),
        scenario.workers,
        initial,
        book.observe,
        book.minibatch,
    )
    status: Literal["done", "interrupted", "failed"] = "done"
    failure = None
    try:
        lab.run()
    except KeyboardInterrupt:
        status = "interrupted"
    except RunFailed as error:
        status, failure = "failed", logged(record.path, error)
    params = lab.parameters.cpu().numpy() if task.size else None
    facts = {"clock": "effects", **devices.facts(scenario)}
    outcome = Outcome(book.statistics, book.end, lab.server.version, params, {}, facts, status, failure)
    with outcome.evaluating(record):
        outcome.evaluate(task, record, {} if lab.first is None else lab.first.buffers(), initial.device)
    return outcome


def order_of(effects: pd.DataFrame) -> list[int]:
    """The turns that repeat a recorded run of coupled workers: whose effects reached the server in which order.

    Only what the server saw decides the outcome: for each version, first the pushes that made it, then the fetches that
    got it; of those first the ones that were granted most, since the budget runs out but once. A worker's Train needs a
    turn of its own, just before its push. Pushes that were dropped changed nothing.
    """
    seen = effects[(effects["worker"] >= 0) & effects["kind"].isin(["fetch", "push"]) & (effects["version"] >= 0)]
    is_fetch = seen["kind"] == "fetch"
    seen = seen.assign(late=is_fetch, less=-seen["steps"].where(is_fetch, 0))
    seen = seen.sort_values(["version", "late", "less"], kind="stable")
    turns: list[int] = []
    for worker, kind in zip(seen["worker"], seen["kind"], strict=True):
        turns += [worker, worker] if kind == "push" else [worker]
    return turns
