"""Repeats a recorded run in this process, in the order of its event log, and compares the bits.

Every push is compared with the recorded one as soon as it is made: its place in the run, and its loss and error to the
last bit, which depend on the parameters. Versions with a recorded hash are compared too, and at the end the final
parameters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.backends import event_log
from asgd_lab.backends.build import (
    build_algorithm,
    build_budget,
    build_server,
    build_task,
    build_worker,
    end_facts,
    initial_parameters,
)
from asgd_lab.backends.event_log import UNKNOWN, Attach, Digest, Format, Kind, Row, WakeAt
from asgd_lab.backends.replayed_worker import Differs, ReplayedWorker, name, stopped_leases
from asgd_lab.backends.settings import settled
from asgd_lab.backends.verification import FINAL, Made, check_gpus
from asgd_lab.errors import ProtocolError, ScenarioError
from asgd_lab.protocol.messages import (
    DROPPED,
    KEPT,
    NOWHERE,
    Ack,
    Answer,
    FetchRequest,
    Grant,
    Join,
    Leave,
    Message,
    PushRequest,
    Reason,
    Request,
    Stop,
    Why,
)
from asgd_lab.protocol.replica import Replica
from asgd_lab.record import atomic_files
from asgd_lab.record.summary import Statistics
from asgd_lab.record.tables import Recording
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a repetition; `difference` is None if every bit was the same."""

    events: int
    versions: int
    pushes: int
    digests: int  # versions during the run whose bytes were compared
    final: bool  # were there final parameters to compare?
    difference: str | None
    made: Made
    params: npt.NDArray[np.float32]  # (P,) the last version
    task: Task


class Repetition:
    """A server and workers that repeat a recorded run."""

    def __init__(self, scenario: Scenario, past: Sequence[Row]) -> None:
        self.scenario, self.task = scenario, build_task(scenario)
        self.algorithm = build_algorithm(scenario)
        self.initial = initial_parameters(scenario, self.task)
        self.device = self.initial.device  # of the replicas; a real run's server computes on the host
        self.mailboxes: dict[int, Tensor] = {}
        self.server = build_server(
            self.task,
            self.algorithm,
            build_budget(scenario),
            self.initial.cpu().clone(),
            self.mailboxes,
            workers=scenario.workers,
        )
        self.lives: dict[int, ReplayedWorker] = {}
        self.pushes = self.digests = 0
        self.recording = Recording.named(scenario.record)
        self.made = Made(Statistics(scenario.workers))
        self._stopped = stopped_leases(past)
        self._late: list[Answer] = []  # answers to other requests, given with the last message

    @property
    def parameters(self) -> Tensor:
        """(P,) the newest version."""
        return self.server.parameters.current if self.server.parameters is not None else torch.empty(0)

    def tell(self, row: Row) -> None:
        """Repeat one row of the log; Differs if the repetition deviates from it."""
        message, life = row.message, self.lives.get(row.worker)
        if isinstance(message, FetchRequest | PushRequest | Leave | Attach) and life is None:
            raise Differs(f"worker {row.worker} is not there, and the record has {Kind(row.kind).name} of it")
        if isinstance(message, FetchRequest | PushRequest):
            assert life is not None
            self._hear(row, self._request(message, life))
        elif isinstance(message, Leave):
            assert life is not None
            if message.why == Why.DONE and not self.server.closed:
                life.run_out()
            life.client.close()
            del self.lives[message.worker]
            self._hear(row, message)
        elif isinstance(message, Grant | Ack | Stop):
            same = [answer for answer in self._late if _facts(answer) == _facts(message)]
            if not same:
                raise Differs(f"worker {row.worker} was answered {_said(message)} in the record, and is not here")
            self._late.remove(same[0])
        elif isinstance(message, Digest):
            self.digests += 1
            if self.server.version == message.version and event_log.digest(self.parameters) != message.crc:
                raise Differs(f"version {message.version}: the parameters are others")
        elif isinstance(message, WakeAt):
            here = -1 if self.server.wake_ns is None else self.server.wake_ns
            if here != message.at_ns:
                raise Differs(f"the server asked to be woken at {message.at_ns} in the record, and at {here} here")
        elif isinstance(message, Attach):
            assert life is not None
            self.lives[message.worker] = self._resumed(life)
        elif not isinstance(message, Format):
            self._hear(row, message)

    def _hear(self, row: Row, message: Message) -> None:
        """Let the server hear the message, at the recorded time."""
        if self._late and row.heard_ns != UNKNOWN:  # logs of version 1 have none of these
            late = self._late[0]
            raise Differs(f"worker {late.worker} was answered {_said(late)} here, before this, and not in the record")
        in_time = not self.server.closed
        try:
            answers = self.server.hear(message, row.begun_ns)
        except ProtocolError as error:
            raise Differs(str(error)) from error
        self.made.end.note(message, in_time, row.ended_ns, answers)
        if isinstance(message, Join):
            self.lives[message.worker] = self._life(message.worker)
        self._check(row, answers)
        self._deliver(answers)

    def _life(self, worker: int) -> ReplayedWorker:
        buffers = [torch.zeros_like(self.initial) for _ in range(self.algorithm.depth)]
        entry = build_worker(self.task, self.algorithm, worker, self.initial, buffers)
        incarnation, pushes = self.server.standing(worker)
        entry.client.begin(incarnation, pushes, self.server.taken(worker))
        return ReplayedWorker(entry, self._stopped.get((worker, incarnation), {}), self._point, self._minibatch)

    def _resumed(self, before: ReplayedWorker) -> ReplayedWorker:
        """A life in a new process, restored from a checkpoint; its unanswered fetch is resent."""
        before.rest()
        life, old = self._life(before.replica.worker), before.replica
        life.client.resume(*before.client.place())
        if life.replica.vectors is not None and old.vectors is not None and old.unpushed:
            life.replica.vectors.restore([vector.clone() for vector in old.vectors.kept()])
        for mine, theirs in zip(life.replica.codec_state, old.codec_state, strict=True):
            mine.copy_(theirs)
        life.learner.load({name: value.clone() for name, value in before.learner.state().items()})
        if old.worker in self.server.waiting:
            [waiting] = before.client.unanswered()
            life.run_until(waiting)
        before.client.close()
        return life

    # ------------------------------------------------------------------ comparisons

    def _request(self, recorded: Request, life: ReplayedWorker) -> Request:
        """The repeated request, compared with the recorded one."""
        made = life.run_until(recorded)
        names = list(recorded._fields)
        if isinstance(recorded, PushRequest) and recorded.size_bytes == UNKNOWN:
            names.remove("size_bytes")
        where = f"{name(recorded)} of worker {recorded.worker}"
        if isinstance(recorded, PushRequest):
            where += f", on version {recorded.base}, which made or went into version {self.server.version + 1}"
        for each in names:
            here, there = getattr(made, each), getattr(recorded, each)
            if here != there and not (math.isnan(here) and math.isnan(there)):
                raise Differs(f"{where}: its {each} is {here!r} here and {there!r} in the record")
        if isinstance(made, PushRequest):
            if life.replica.updates:
                self.mailboxes[made.worker] = life.replica.updates[made.buffer].cpu()
            self.pushes += 1
        return made

    def _check(self, row: Row, answers: list[Answer]) -> None:
        """Compare a request's immediate answer with the record; logs of version 1 have none."""
        kind = Grant if row.kind == Kind.FETCH else Ack if row.kind == Kind.PUSH else None
        own = next(
            (
                answer
                for answer in answers
                if type(answer) is kind and answer[:3] == row[1:4] and answer.part == row.part
            ),
            None,
        )
        self._late = [answer for answer in answers if answer is not own]
        if kind is not None and row.heard_ns != UNKNOWN and _facts(own, True) != _facts(row.answer, True):
            raise Differs(f"it was answered {_said(row.answer)} in the record, and {_said(own)} here")

    # ------------------------------------------------------------------ results

    def _minibatch(self, round: int, worker: int, step: int, loss: float, error: float) -> None:
        if self.recording.keep_round(round):
            self.made.minibatches.append((worker, step, loss, error))

    def _count(self, ack: Ack) -> None:
        if ack.version == KEPT:
            return
        if ack.version == DROPPED:
            self.made.statistics.dropped(ack.steps)
            return
        self.made.statistics.applied(ack.staleness, ack.steps)
        if ack.part >= 0:
            self.made.statistics.applied_to_part(ack.part, ack.staleness)
        if self.recording.keep_round(ack.number):
            self.made.applied.append((ack.version, ack.staleness, ack.steps))

    def _deliver(self, answers: list[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Ack):
                self._count(answer)
            life = self.lives.get(answer.worker)
            if life is None:
                continue  # it died while its push was collected
            if isinstance(answer, Stop):
                life.stops[answer.number] = answer
            elif life.client.hear(answer) and isinstance(answer, Grant):
                self._point(life.replica, answer)

    def _point(self, replica: Replica, grant: Grant) -> None:
        """Give the replica its granted version."""
        if replica.vectors is None or grant.slot < 0:
            return
        assert self.server.parameters is not None
        vector = self.server.parameters.vector(grant.slot, grant.part)
        replica.receive(grant.part, vector.to(self.device))


@settled()
def repeat(scenario: Scenario, run_dir: Path, watch: Any = None) -> Verdict:
    """Repeat the real run recorded in `run_dir`; `watch(done, all)` is called with the progress in rows."""
    if build_algorithm(scenario).shared:
        raise ScenarioError(f"{run_dir}: is a run of hogwild, whose updates have no order that could be repeated")
    check_gpus(scenario, run_dir)
    past = event_log.read(run_dir / event_log.FILE)
    if not past:
        raise ScenarioError(f"{run_dir / event_log.FILE}: holds no events; there is nothing to repeat")
    repetition, difference = Repetition(scenario, past), None
    for index, row in enumerate(past):
        if watch is not None and index % 256 == 0:
            watch(index, len(past))
        try:
            repetition.tell(row)
        except Differs as error:
            what = f"{Kind(row.kind).name.lower()} {row.number} of worker {row.worker}"
            difference = f"event {index} ({what}, {row.ended_ns * 1e-9:.6f} s): {error}"
            break
    final = os.path.lexists(run_dir / FINAL) and bool(repetition.task.size)
    params = repetition.parameters.numpy()
    if difference is None and final:
        recorded = atomic_files.read_arrays(run_dir / FINAL).get("params")
        if recorded is None or recorded.tobytes() != params.tobytes():
            difference = f"{FINAL}: the final parameters, version {repetition.server.version}, are others"
    server, made = repetition.server, repetition.made
    made.facts = end_facts(scenario, server, "seconds" if server.closed else None)
    made.facts["wasted_minibatches"] = server.wasted or None
    made.failure, versions = server.failure, server.version
    return Verdict(
        len(past), versions, repetition.pushes, repetition.digests, final, difference, made, params, repetition.task
    )


def _facts(answer: Answer | None, immediate: bool = False) -> tuple[object, ...]:
    """The fields of an answer that a repetition must have too; a push's row has no count of its immediate Ack."""
    if isinstance(answer, Grant):
        return *answer._replace(slot=NOWHERE), Kind.GRANT
    if isinstance(answer, Ack):
        return *(answer._replace(steps=0) if immediate else answer), Kind.ACK
    return () if answer is None else (*answer, Kind.STOP)


def _said(answer: Answer | None) -> str:
    if isinstance(answer, Grant):
        return f"fetch {answer.number}: {answer.steps} minibatches on version {answer.version}"
    if isinstance(answer, Ack):
        where = f"in {answer.version}" if answer.version > 0 else "kept" if answer.version == KEPT else "dropped"
        if answer.version == DROPPED:
            where += f", {Reason(answer.reason).name.lower()}"
        return f"push {answer.number}: {where}, stale {answer.staleness}"
    return "nothing" if answer is None else f"stop of lease {answer.number}"
