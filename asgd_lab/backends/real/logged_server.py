"""The protocol's server and its event log, from which the next server recovers.

A version is in its buffer before the message that made it is logged, and the message is logged, by one 8-byte store,
before its answers are sent. So a server that is killed at any point leaves a log of effective messages, and their
versions. The next server reads the log, counts without computing, and has the state of the dead one, except requests
that were not logged: these have no answer, and are resent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm, build_budget, build_server, build_task
from asgd_lab.backends.event_log import UNKNOWN, Attach, Digest, EventLog, Times, WakeAt
from asgd_lab.backends.real import transport
from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.transport import Welcome
from asgd_lab.backends.run_end import RunEnd
from asgd_lab.protocol.messages import (
    ALL,
    KEPT,
    Ack,
    Answer,
    FetchRequest,
    Grant,
    Join,
    Leave,
    Message,
    PushRequest,
    Stop,
    Why,
    new,
)
from asgd_lab.protocol.parameters import Memory
from asgd_lab.tasks.base import CPU


class _InMemory(Memory):
    """The server's tensors in the transport's memory, for the next server."""

    def __init__(self, memory: transport.Memory) -> None:
        self._memory = memory

    def slot(self, number: int) -> Tensor:
        """(P,) for a version."""
        return self._memory.slot(number, writable=True)

    def state(self, number: int) -> Tensor:
        """(P,) for a vector of the rule."""
        return self._memory.state(number)

    def scalar(self, number: int) -> Tensor:
        """() float64 for a number of the rule."""
        return self._memory.scalar(number)

    def copy(self, number: int) -> Tensor:
        """(P,) for a copy of an update that is kept."""
        return self._memory.copy(number)


class LoggedServer:
    """A server and its log; messages go to `server` by `commit` alone. Times are nanoseconds of the run's own clock.

    `reading` is called for each message of an existing log.
    """

    def __init__(self, plan: Plan, memory: transport.Memory, reading: Callable[[], None] = lambda: None) -> None:
        scenario = plan.scenario
        workers = scenario.workers
        task = build_task(scenario, plan.transport.tensors(), checked=True, device=CPU)
        algorithm = build_algorithm(scenario)
        past = event_log.read(plan.events) if plan.events.exists() else []
        self._depth = depth = algorithm.depth
        self._many = depth > 1 or algorithm.parts > 1  # may a worker have several pushes under way?
        self._buffers = [[memory.mailbox(worker, buffer) for buffer in range(depth)] for worker in range(workers)]
        self._mailboxes = {worker: buffers[0] for worker, buffers in enumerate(self._buffers)}
        self.server = build_server(
            task,
            algorithm,
            build_budget(scenario),
            torch.empty(0) if past else torch.clone(memory.slot(0)),
            self._mailboxes,
            _InMemory(memory),
            counting=bool(past),
            workers=workers,
        )
        self._log = EventLog(plan.events, existing=True)
        self.end = RunEnd()
        self.incarnations = [0] * workers  # of each member; 0: not a member
        # By worker and part: the last fetch in this life, and the last push over all lives.
        self.fetches: list[dict[int, int]] = [{} for _ in range(workers)]
        self.pushes: list[dict[int, int]] = [{} for _ in range(workers)]
        self.lives = [0] * workers  # the number of each worker's life
        self.stops: dict[int, Stop] = {}  # the last Stop of each worker's life
        # By worker: the last Grant of each part, and the last Acks by number and part.
        self._grants: list[dict[int, Grant]] = [{} for _ in range(workers)]
        self._acks: list[dict[tuple[int, int], Ack]] = [{} for _ in range(workers)]
        self._left: dict[int, int] = {}  # the reasons of workers that have left and not rejoined
        unlogged: list[Answer] = []  # answers to the last message, which has these times
        times = Times.at(0)
        for row in past:
            reading()
            message = row.message
            if isinstance(message, Message | Attach):
                answers, times = self._tell(message, row.begun_ns), row.times
                self.end.note(message, self._in_time, row.ended_ns, answers)
                own = row.answer
                unlogged = [each for each in answers if own is None or _which(each) != _which(own)]
            elif isinstance(message, Grant | Ack | Stop):
                unlogged = [each for each in unlogged if _which(each) != _which(message)]
        for answer in unlogged:  # the dead server had not logged them yet
            self._log.add(answer, times)
        self._wake_ns = self.server.wake_ns
        if self.server.parameters is not None:
            self.server.parameters.counting = False

    def __len__(self) -> int:
        return len(self._log)

    def close(self) -> None:
        self._log.close()

    def commit(
        self, message: Message | Attach, begun_ns: int, clock: Callable[[], int], sent_ns: int | None = None,
        heard_ns: int | None = None, received_ns: int = UNKNOWN, of_clock: int = 0,
    ) -> list[Answer]:  # fmt: skip
        """Let the server hear the message, and log it with that end; return its answers, which may be sent now.

        A message without a sender was sent and heard when it began. See `Times` for the rest.
        """
        answers = self._tell(message, begun_ns)
        ended_ns = clock()
        sent_ns = begun_ns if sent_ns is None else sent_ns
        heard_ns = begun_ns if heard_ns is None else heard_ns
        times = new(Times, (sent_ns, heard_ns, begun_ns, ended_ns, received_ns, of_clock))
        self._log.add(message, times, answers)
        if self.server.wake_ns != self._wake_ns:
            self._wake_ns = self.server.wake_ns
            self._log.add(WakeAt(-1 if self._wake_ns is None else self._wake_ns), Times.at(ended_ns))
        self.end.note(message, self._in_time, ended_ns, answers)
        return answers

    def digest(self, now_ns: int) -> None:
        """Log a hash of the newest version."""
        parameters = self.server.parameters
        assert parameters is not None
        digest = Digest(self.server.version, event_log.digest(parameters.current))
        self._log.add(digest, Times.at(now_ns))

    def knows(self, request: FetchRequest | PushRequest) -> bool:
        """Whether the request is logged already: it was resent to a new server."""
        last = self.fetches if type(request) is FetchRequest else self.pushes
        return request.number <= last[request.worker].get(request.part, 0)

    def answer(self, request: FetchRequest | PushRequest) -> Grant | Ack | None:
        """The answer to a known request; None if it still waits, or was answered long ago."""
        if type(request) is PushRequest:
            return self._acks[request.worker].get((request.number, request.part))
        grant = self._grants[request.worker].get(request.part)
        return grant if grant is not None and grant.number == request.number else None

    def away(self, restarts: bool) -> set[int]:
        """Workers expected to rejoin: after a loss that was not finite, or after any death if workers are restarted."""
        return {worker for worker, why in self._left.items() if why == Why.NOT_FINITE or (restarts and why != Why.DONE)}

    def welcome(self, worker: int, start_ns: int) -> Welcome:
        """The first message to a life: its place in the run."""
        incarnation, pushes = self.server.standing(worker)
        taken = self.server.taken(worker)
        fetches = max(self.fetches[worker].values(), default=0)
        return Welcome(worker, incarnation, self.lives[worker], pushes, taken, fetches, start_ns)

    def _tell(self, message: Message | Attach, now_ns: int) -> list[Answer]:
        self._in_time = not self.server.closed
        kind = type(message)
        if kind is PushRequest:
            self.pushes[message.worker][message.part] = message.number  # type: ignore[union-attr]
            if self._depth > 1:
                self._mailboxes[message.worker] = self._buffers[message.worker][message.buffer]  # type: ignore[union-attr]
        elif kind is FetchRequest:
            self.fetches[message.worker][message.part] = message.number  # type: ignore[union-attr]
        elif isinstance(message, Leave):
            self._left[message.worker] = message.why
            self.incarnations[message.worker] = 0
        elif isinstance(message, Join | Attach):
            self._begin(message)
            if isinstance(message, Attach):
                return []
        answers = self.server.hear(message, now_ns)  # type: ignore[arg-type]
        if kind is Join:
            self.incarnations[message.worker] = self.server.standing(message.worker)[0]  # type: ignore[union-attr]
        for answer in answers:
            self._keep(answer)
        return answers

    def _begin(self, message: Join | Attach) -> None:
        """Reset the answers of a worker, for its new process."""
        worker = message.worker
        self._left.pop(worker, None)
        self.lives[worker] = message.life
        self._grants[worker].clear()
        self._acks[worker].clear()
        if isinstance(message, Join):
            self.fetches[worker].clear()
            self.stops.pop(worker, None)

    def _keep(self, answer: Answer) -> None:
        worker = answer.worker
        if type(answer) is Grant:
            self._grants[worker][answer.part] = answer
        elif type(answer) is Ack:
            # A push that was kept is acknowledged again when it is merged, maybe after later ones.
            acks = self._acks[worker]
            acks[answer.number, answer.part] = answer
            if len(acks) > (self._depth * len(self.pushes[worker]) if self._many else 1):  # more than it can be without
                del acks[min(acks)]
        else:
            assert isinstance(answer, Stop)
            self.stops[worker] = answer


def _which(answer: Answer) -> tuple[object, ...]:
    """The request or lease that an answer concerns, and whether it ends it."""
    is_kept = isinstance(answer, Ack) and answer.version == KEPT
    return type(answer), *answer[:3], getattr(answer, "part", ALL), is_kept
