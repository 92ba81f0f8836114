"""The inline backend: workers take turns in a given order, in this process and without a clock. It is the reference.

One turn advances one worker's client by one step and carries it out. Between turns the caller may do anything: tests
draw the turns, kill workers and let them join; a recorded run is re-executed by giving its order.
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
    clock_doubts,
    end_facts,
    initial_parameters,
)
from asgd_lab.backends.failing import logged, minibatch_failed
from asgd_lab.backends.inline_observers import Book, Observer
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.errors import ProtocolError, RunFailed
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.effects import Train
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import Answer, FetchRequest, Grant, Join, Leave, Message, PushRequest, Why
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import Learner, Task

if TYPE_CHECKING:
    import pandas as pd


class Inline:
    """A run without a clock."""

    def __init__(
        self,
        task: Task,
        algorithm: Algorithm,
        budget: Budget,
        workers: int,
        initial: Tensor | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.task, self.algorithm = task, algorithm
        self.initial = task.initial() if initial is None else initial
        self.mailboxes: dict[int, Tensor] = {}
        self._shared = self.initial.clone() if algorithm.shared else None
        self.server = build_server(task, algorithm, budget, self.initial, self.mailboxes, workers=workers)
        self.workers: dict[int, Worker] = {}
        self.first: Learner | None = None  # of worker 0, even after it has left: evaluations use its buffers
        self.ready: set[int] = set()  # workers that may take a turn; the others wait for an answer
        self._observer = Observer() if observer is None else observer
        for worker in range(workers):
            self.join(worker)

    @property
    def parameters(self) -> Tensor:
        """(P,) the server's newest version; empty for a task without parameters."""
        if self._shared is not None:
            return self._shared
        return self.server.parameters.current if self.server.parameters is not None else torch.empty(0)

    def join(self, worker: int) -> None:
        """Let a new incarnation of `worker` join. Its mailbox is the earlier one's, whose push may still be needed."""
        mailbox = self.mailboxes.setdefault(worker, torch.zeros_like(self.initial))
        self._hear(Join(worker))
        buffers = [mailbox, *(torch.zeros_like(mailbox) for _ in range(self.algorithm.depth - 1))]
        entry = build_worker(self.task, self.algorithm, worker, self.initial, buffers, self._shared)
        entry.client.begin(*self.server.standing(worker), self.server.taken(worker))
        self.workers[worker] = entry
        if worker == 0:
            self.first = entry.learner
        self.ready.add(worker)

    def kill(self, worker: int) -> None:
        """Let `worker` die, at any point of its program."""
        self._leave(Leave(worker, self.workers[worker].replica.incarnation, Why.DIED))

    def turn(self, worker: int) -> None:
        """Carry out the next step of `worker`."""
        if worker not in self.ready:
            raise ProtocolError(f"it is not worker {worker}'s turn: it waits for a grant, or has left")
        entry = self.workers[worker]
        step = entry.client.advance()
        if step is None:  # it waits now
            self.ready.discard(worker)
            return
        self._observer.step(worker, step)
        if type(step) is Train:
            self._train(entry)
        elif type(step) is FetchRequest or type(step) is PushRequest:
            if entry.client.awaits is not None:
                self.ready.discard(worker)
            if type(step) is PushRequest and entry.replica.updates:
                self.mailboxes[worker] = entry.replica.updates[step.buffer]
            self._hear(step)
        elif type(step) is Grant:
            self._point(entry, step)
        elif type(step) is Leave:
            self._leave(step)

    def _train(self, entry: Worker) -> None:
        replica, client = entry.replica, entry.client
        loss_sum = error_sum = 0.0
        taken = 0
        for step in range(replica.minibatches, replica.minibatches + replica.steps):
            try:
                loss, error = entry.learner.minibatch(step)
            except Exception as raised:
                raise minibatch_failed(replica.worker, step, raised) from raised
            loss_sum += loss
            error_sum += error
            taken += 1
            self._observer.minibatch(replica, step, loss, error)
            if client.stopping:
                break
        client.trained(loss_sum, error_sum, taken)

    def _leave(self, leave: Leave) -> None:
        self.workers.pop(leave.worker).client.close()
        self.ready.discard(leave.worker)
        self._hear(leave)

    def run(self, order: Iterable[int] | None = None) -> None:
        """Take the turns of `order`; without one, let all workers take turns until all have left."""
        if order is not None:
            for worker in order:
                self._turn(worker)
            return
        while self.workers:
            if not self.ready:
                raise RunFailed(f"deadlock: workers {sorted(self.workers)} wait for a grant that never comes")
            for worker in sorted(self.ready):
                if worker in self.ready:
                    self._turn(worker)

    def _turn(self, worker: int) -> None:
        self.turn(worker)
        if self.server.wake_ns is not None:
            raise RunFailed("the gate asks to be woken, and a run without a clock cannot do so; use sim or process")

    def _hear(self, message: Message) -> None:
        """Let the server hear the message, and hand its answers over."""
        in_time = not self.server.closed
        answers = self.server.hear(message)
        self._observer.heard(message, in_time, answers)
        self.deliver(answers)

    def deliver(self, answers: list[Answer]) -> None:
        """Hand the server's answers to their workers."""
        for answer in answers:
            self._observer.answered(answer.worker, answer)
            entry = self.workers.get(answer.worker)
            if entry is not None and entry.client.hear(answer):
                if type(answer) is Grant:
                    self._point(entry, answer)
                self.ready.add(answer.worker)

    def _point(self, entry: Worker, grant: Grant) -> None:
        """Give the replica its granted version."""
        replica, parameters = entry.replica, self.server.parameters
        if replica.vectors is not None and grant.slot >= 0 and parameters is not None:
            replica.receive(grant.part, parameters.vector(grant.slot, grant.part))


def run(
    scenario: Scenario,
    record: RunDirectory,
    watch: Watch | None = None,
    order: Callable[[Inline], Iterable[int]] | None = None,
) -> Outcome:
    """Run the scenario with all workers in turn, or in an order drawn from the run's state. Its tables give the order
    of effects, not their times.
    """
    task = build_task(scenario)
    room.check(scenario, task.size)
    initial = initial_parameters(scenario, task)
    record.begin()
    algorithm = build_algorithm(scenario)
    book = Book(record, scenario.workers, task.size_bytes, algorithm.parts)
    lab = Inline(
        task,
        algorithm,
        build_budget(scenario),
        scenario.workers,
        initial,
        book,
    )
    status: Literal["done", "interrupted", "failed"] = "done"
    failure = None
    try:
        lab.run(None if order is None else order(lab))
        if lab.server.failure is not None:
            status, failure = "failed", lab.server.failure
    except KeyboardInterrupt:
        status = "interrupted"
    except (RunFailed, ProtocolError) as error:
        status, failure = "failed", logged(record.path, error)
    params = lab.parameters.cpu().numpy() if task.size else None
    ended = end_facts(scenario, lab.server) if status == "done" else {}
    facts = {"clock": "effects", **devices.facts(scenario), **ended}
    outcome = Outcome(book.statistics, book.end.ns, lab.server.version, params, {}, facts, status, failure)
    outcome.doubts = clock_doubts(scenario, algorithm)
    with outcome.evaluating(record):
        outcome.evaluate(task, record, {} if lab.first is None else lab.first.buffers(), initial.device)
    return outcome


def order_of(effects: pd.DataFrame) -> list[int]:
    """The turns that repeat a recorded run of coupled workers: the order in which their requests reached the server.

    Only this order decides the outcome: for each version, first the pushes that made it, then the fetches that got it,
    and among those the largest grants first, since the budget runs out only once. A worker's Train needs a turn of its
    own, just before its push. Dropped pushes changed nothing.
    """
    seen = effects[(effects["worker"] >= 0) & effects["kind"].isin(["fetch", "push"]) & (effects["version"] >= 0)]
    is_fetch = seen["kind"] == "fetch"
    seen = seen.assign(late=is_fetch, less=-seen["steps"].where(is_fetch, 0))
    seen = seen.sort_values(["version", "late", "less"], kind="stable")
    turns: list[int] = []
    for worker, kind in zip(seen["worker"], seen["kind"], strict=True):
        turns += [worker, worker] if kind == "push" else [worker]
    return turns
