"""Repeats a recorded run in this process, in the order that its server was told, and compares the bits.

Every push is compared with the recorded one as soon as it is made: its place in the run, and its loss and error to the
last bit, which the parameters that it was made with determine. Versions whose hash was recorded are compared too, and
at the end the final parameters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.backends import history
from asgd_lab.backends.build import (
    Worker,
    build_algorithm,
    build_budget,
    build_server,
    build_task,
    build_worker,
    initial_parameters,
)
from asgd_lab.backends.failing import minibatch_failed
from asgd_lab.backends.history import digest
from asgd_lab.backends.settings import settled
from asgd_lab.backends.verification import FINAL, Made, check_gpus
from asgd_lab.errors import ProtocolError, ScenarioError
from asgd_lab.protocol.effects import Effect, Fetch, Start, Train, Wait
from asgd_lab.protocol.events import Event, Kind, Why, feed
from asgd_lab.protocol.grants import DROPPED, FetchGrant, Grant, PushGrant
from asgd_lab.protocol.replica import Arrived, Replica
from asgd_lab.record import atomic_files
from asgd_lab.record.summary import Statistics
from asgd_lab.record.tables import Recording
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task

FETCH = -1  # among the buffers of pushes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a repetition has shown; `difference` is None where every bit was the same."""

    events: int
    versions: int
    pushes: int
    digests: int  # versions on the way whose bytes were compared
    final: bool  # were the final parameters there to be compared?
    difference: str | None
    made: Made
    params: npt.NDArray[np.float32]  # (P,) the last version
    task: Task


class Differs(Exception):
    """The repetition is not what was recorded."""


class _Life:
    """One incarnation of a worker: its program, what it has submitted, and what it was answered."""

    def __init__(self, worker: Worker, minibatch: Callable[[int, int, int, float, float], None]) -> None:
        self.worker, self.replica, self.minibatch = worker, worker.replica, minibatch
        self.fetches = 0
        self.submitted: dict[int, tuple[int, Arrived | None]] = {}  # by buffer: the number, and of a push what it says
        self.buffers: dict[int, int] = {}  # of pushes that are not answered, by their number
        self.going: set[int] = set()  # what the program has begun and not waited for
        self.answered: dict[int, FetchGrant | None] = {}  # and the answers to it
        self.awaits: int | None = None

    def run_until(self, which: int, number: int) -> Arrived | None:
        """Go on with the program until it has submitted this; what a push said."""
        while self.submitted.get(which, (0, None))[0] != number:
            if self.awaits is not None and self.awaits not in self.answered:
                raise Differs(f"it waits for {_exchange(self.awaits)}, and the record has {_exchange(which)} {number}")
            self._take()
            effect = next(self.worker.program, None)
            if effect is None:
                raise Differs(f"its program ends, and the record has {_exchange(which)} {number}")
            self._begin(effect)
        return self.submitted.pop(which)[1]

    def run_out(self) -> None:
        """Go on to the program's end."""
        self._take()
        effect = next(self.worker.program, None)
        if effect is not None:
            raise Differs(f"it goes on with {type(effect).__name__}, and the record has its end")

    def rest(self) -> None:
        """Go on until all that it waits for is a fetch: between two rounds."""
        while self.awaits != FETCH or FETCH in self.answered:
            self._take()
            effect = next(self.worker.program, None)
            if effect is None:
                raise Differs("its program ends, and the record goes on with it after a checkpoint")
            self._begin(effect)

    def _begin(self, effect: Effect) -> None:
        replica = self.replica
        if type(effect) is Train:
            loss_sum = error_sum = 0.0
            for step in range(replica.minibatches, replica.minibatches + replica.steps):
                try:
                    loss, error = self.worker.learner.minibatch(step)
                except Exception as raised:
                    raise minibatch_failed(replica.worker, step, raised) from raised
                self.minibatch(replica.sequence + 1, replica.worker, step, loss, error)
                loss_sum += loss
                error_sum += error
            replica.trained(loss_sum, error_sum)
            return
        exchange = effect.effect if isinstance(effect, Start | Wait) else effect
        which = FETCH if isinstance(exchange, Fetch) else exchange.buffer  # type: ignore[union-attr]
        if type(effect) is Wait:
            self.awaits = which if which in self.going else None
            return
        self.going.add(which)
        if which == FETCH:
            self.fetches += 1
            self.submitted[which] = (self.fetches, None)
        else:
            arrived = replica.arriving()
            self.submitted[which] = (arrived.sequence, arrived)
            self.buffers[arrived.sequence] = which
        self.awaits = None if type(effect) is Start else which

    def _take(self) -> None:
        if self.awaits is None:
            return
        grant = self.answered.pop(self.awaits)
        self.going.remove(self.awaits)
        self.awaits = None
        if grant is not None:
            self.replica.grant(grant.version, grant.steps)


class Repetition:
    """A server and workers that do again what a record says."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario, self.task = scenario, build_task(scenario)
        self.algorithm = build_algorithm(scenario)
        self.initial = initial_parameters(scenario, self.task)
        self.device = self.initial.device  # of the replicas; a real run's server computes on the host
        self.mailboxes: dict[int, Tensor] = {}
        self.server = build_server(
            self.task, self.algorithm, build_budget(scenario), self.initial.cpu().clone(), self.mailboxes
        )
        self.lives: dict[int, _Life] = {}
        self.pushes = self.digests = 0
        self.recording = Recording.named(scenario.record)
        self.made = Made(Statistics(scenario.workers))

    def tell(self, event: Event) -> None:
        """Let it happen; Differs if it does not."""
        worker, life = event.worker, self.lives.get(event.worker)
        if event.kind == Kind.JOIN:
            self._deliver(feed(self.server, event))
            self.lives[worker] = self._life(worker)
            return
        if event.kind == Kind.DIGEST:
            self.digests += 1
            if self.server.version == event.number and digest(self.parameters) != event.detail:
                raise Differs(f"version {event.number}: the parameters are others")
            return
        if event.kind == Kind.ATTACH and life is not None:
            self.lives[worker] = self._resumed(life)
            return
        if event.kind in (Kind.FETCH, Kind.PUSH, Kind.LEAVE, Kind.ATTACH) and life is None:
            raise Differs(f"worker {worker} is not there, and the record has {Kind(event.kind).name} of it")
        if event.kind == Kind.FETCH and life is not None:
            life.run_until(FETCH, event.number)
        elif event.kind == Kind.PUSH and life is not None:
            self._compare(event, life.run_until(event.detail, event.number))
            if life.replica.updates:
                self.mailboxes[worker] = life.replica.updates[event.detail].cpu()
            self.pushes += 1
        elif event.kind == Kind.LEAVE and life is not None:
            if event.detail == Why.DONE and not self.server.closed:
                life.run_out()
            life.worker.program.close()
            del self.lives[worker]
        try:
            self._deliver(feed(self.server, event))
        except ProtocolError as error:
            raise Differs(str(error)) from error

    @property
    def parameters(self) -> Tensor:
        """(P,) the newest version."""
        return self.server.parameters.current if self.server.parameters is not None else torch.empty(0)

    def _life(self, worker: int) -> _Life:
        buffers = [torch.zeros_like(self.initial) for _ in range(self.algorithm.depth)]
        entry = build_worker(self.task, self.algorithm, worker, self.initial, buffers)
        replica = entry.replica
        replica.incarnation, replica.sequence = self.server.standing(worker)
        replica.minibatches = self.server.taken(worker)
        return _Life(entry, self._minibatch)

    def _resumed(self, before: _Life) -> _Life:
        """A new process with what a checkpoint has of a life; the fetch that is not granted is asked again."""
        before.rest()
        life, old = self._life(before.replica.worker), before.replica
        life.replica.resume(*old.place())
        if life.replica.vectors is not None and old.vectors is not None and old.unpushed:
            life.replica.vectors.restore([vector.clone() for vector in old.vectors.kept()])
        state = before.worker.learner.state()
        life.worker.learner.load({name: value.clone() for name, value in state.items()})
        life.fetches = before.fetches - 1
        if old.worker in self.server.waiting:
            life.run_until(FETCH, before.fetches)
        before.worker.program.close()
        return life

    def _compare(self, event: Event, made: Arrived | None) -> None:
        assert made is not None
        recorded = event.arrived
        for name in ("sequence", "base", "steps", "loss", "error"):
            here, there = getattr(made, name), getattr(recorded, name)
            if here != there and not (math.isnan(here) and math.isnan(there)):
                where = f"push {event.number} of worker {event.worker}, on version {recorded.base}"
                raise Differs(f"{where}, which made or went into version {self.server.version + 1}: "
                              f"its {name} is {here!r} here and {there!r} in the record")  # fmt: skip

    def _minibatch(self, round: int, worker: int, step: int, loss: float, error: float) -> None:
        if self.recording.keep_round(round):
            self.made.minibatches.append((worker, step, loss, error))

    def _count(self, grant: PushGrant) -> None:
        if grant.version == DROPPED:
            self.made.statistics.dropped(grant.steps)
            return
        self.made.statistics.applied(grant.staleness, grant.steps)
        if self.recording.keep_round(grant.sequence):
            self.made.applied.append((grant.version, grant.staleness, grant.steps))

    def _deliver(self, grants: list[Grant]) -> None:
        for grant in grants:
            if isinstance(grant, PushGrant):
                self._count(grant)
            life = self.lives.get(grant.worker)
            if life is None or (isinstance(grant, PushGrant) and grant.incarnation != life.replica.incarnation):
                continue  # it died while its push was collected
            if isinstance(grant, FetchGrant):
                life.answered[FETCH] = grant
                self._center(life.replica, grant)
            else:
                life.answered[life.buffers.pop(grant.sequence)] = None

    def _center(self, replica: Replica, grant: FetchGrant) -> None:
        if replica.vectors is not None and grant.steps:
            assert self.server.parameters is not None
            center = self.server.parameters.vector(self.server.parameters.pinned(grant.worker))
            replica.vectors.center = center.to(self.device)


@settled()
def repeat(scenario: Scenario, run_dir: Path, watch: Any = None) -> Verdict:
    """Repeat the run in `run_dir` that the process backend has recorded; `watch(done, all)` is told how far it is."""
    if build_algorithm(scenario).shared:
        raise ScenarioError(f"{run_dir}: is a run of hogwild, whose updates have no order that could be repeated")
    check_gpus(scenario, run_dir)
    past = history.read(run_dir / history.FILE)
    if not past:
        raise ScenarioError(f"{run_dir / history.FILE}: holds no events; there is nothing to repeat")
    repetition, difference = Repetition(scenario), None
    for index, happened in enumerate(past):
        if watch is not None and index % 256 == 0:
            watch(index, len(past))
        try:
            repetition.tell(happened.event)
        except Differs as error:
            event = happened.event
            what = f"{Kind(event.kind).name.lower()} {event.number} of worker {event.worker}"
            difference = f"event {index} ({what}, {happened.ended_ns * 1e-9:.6f} s): {error}"
            break
    final = os.path.lexists(run_dir / FINAL) and bool(repetition.task.size)
    params = repetition.parameters.numpy()
    if difference is None and final:
        recorded = atomic_files.read_arrays(run_dir / FINAL).get("params")
        if recorded is None or recorded.tobytes() != params.tobytes():
            difference = f"{FINAL}: the final parameters, version {repetition.server.version}, are others"
    versions, made = repetition.server.version, repetition.made
    return Verdict(
        len(past), versions, repetition.pushes, repetition.digests, final, difference, made, params, repetition.task
    )


def _exchange(which: int) -> str:
    return "fetch" if which == FETCH else "push"
