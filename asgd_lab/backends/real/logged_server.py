"""The protocol's server and the record of what it was told, which is also what the next server recovers from.

A version lies in shared memory before the event that made it is recorded, and the event is recorded, by one 8-byte
store, before anybody hears of it. So a server that is killed, wherever it was, leaves behind a row of events that
happened, and the versions that belong to them. The next one reads the row, keeps the books without computing, and is
the one that died, but for requests that it has not recorded: these were not answered, and are asked again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm, build_budget, build_server, build_task
from asgd_lab.backends.event_log import Attach, Digest, EventLog, Times
from asgd_lab.backends.real.channel import Answer, Ask
from asgd_lab.backends.real.plan import Plan
from asgd_lab.protocol.messages import Answer as Said
from asgd_lab.protocol.messages import Close, FetchRequest, Grant, Join, Leave, Message, PushRequest, Stop, Why
from asgd_lab.protocol.parameters import Memory
from asgd_lab.tasks.base import CPU


class SharedMemory(Memory):
    """The server's tensors in the run's shared memory, where the next server finds them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def slot(self, number: int) -> Tensor:
        """(P,) for a version."""
        return self._plan.slots.vector(number, writable=True)

    def state(self, number: int) -> Tensor:
        """(P,) for a vector of the rule."""
        return self._plan.states.vector(number, writable=True)

    def scalar(self, number: int) -> Tensor:
        """() float64 for a number of the rule."""
        return self._plan.scalars.vector(number, writable=True).view(torch.float64)[0]

    def copy(self, number: int) -> Tensor:
        """(P,) for a copy of an update that is kept."""
        return self._plan.copies.vector(number, writable=True)


class LoggedServer:
    """`server` is told by `commit` alone. Times are nanoseconds of the run's own clock.

    `reading` is called for each event of the past.
    """

    def __init__(self, plan: Plan, reading: Callable[[], None] = lambda: None) -> None:
        self._plan = plan
        scenario = plan.scenario
        task, algorithm = build_task(scenario, plan.data.tensors(), checked=True, device=CPU), build_algorithm(scenario)
        past = event_log.read(plan.events) if plan.events.exists() else []
        self._depth = algorithm.depth
        self._buffers = [
            [plan.mailboxes.vector(worker * self._depth + buffer) for buffer in range(self._depth)]
            for worker in range(scenario.workers)
        ]
        self._mailboxes = {worker: buffers[0] for worker, buffers in enumerate(self._buffers)}
        self.server = build_server(
            task,
            algorithm,
            build_budget(scenario),
            torch.empty(0) if past else torch.clone(plan.slots.vector(0)),
            self._mailboxes,
            SharedMemory(plan),
            counting=bool(past),
        )
        self._log = EventLog(plan.events, existing=True)
        self.end_ns = 0  # of the last push that was in time, or when the run was closed
        self.fetches = [0] * scenario.workers  # each worker's last fetch, in this life
        self.lives = [0] * scenario.workers  # the number of each worker's life
        self._answers: list[dict[tuple[int, int], Answer]] = [{} for _ in range(scenario.workers)]
        self._left: dict[int, int] = {}  # who is out, and why
        for row in past:
            reading()
            message = row.message
            if isinstance(message, Message | Attach):
                self._tell(message, row.begun_ns)
                self._mark(message, row.ended_ns)
        if self.server.parameters is not None:
            self.server.parameters.counting = False

    def __len__(self) -> int:
        return len(self._log)

    def close(self) -> None:
        """No more events."""
        self._log.close()

    def commit(self, message: Message | Attach, times: Times, clock: Callable[[], int]) -> list[Said]:
        """Tell the server, and record it as ended by then; its answers may be sent now."""
        answers = self._tell(message, times.begun_ns)
        ended_ns = clock()
        self._log.add(message, times._replace(ended_ns=ended_ns), answers)
        self._mark(message, ended_ns)
        return answers

    def digest(self, now_ns: int) -> None:
        """Record a hash of the newest version."""
        parameters = self.server.parameters
        assert parameters is not None
        digest = Digest(self.server.version, event_log.digest(parameters.current))
        self._log.add(digest, Times.at(now_ns))

    def answer(self, worker: int, to: int, number: int) -> Answer | None:
        """What a request was answered that has come again; None if it waits."""
        return self._answers[worker].get((to, number))

    def away(self, restarts: bool) -> set[int]:
        """Who is out and will be back: because of its loss, or for any reason if those who die are started again."""
        return {worker for worker, why in self._left.items() if why == Why.NOT_FINITE or (restarts and why != Why.DONE)}

    def standing(self, worker: int) -> Answer:
        """What begins a life: its place in the run, but for the clock."""
        incarnation, sequence = self.server.standing(worker)
        life, taken = self.lives[worker], self.server.taken(worker)
        return Answer(Ask.READY, life, incarnation, sequence, taken, waited_ns=self.fetches[worker])

    def _mark(self, message: Message | Attach, ended_ns: int) -> None:
        if (isinstance(message, PushRequest) and self._in_time) or isinstance(message, Close):
            self.end_ns = ended_ns

    def _tell(self, message: Message | Attach, now_ns: int) -> list[Said]:
        self._in_time = not self.server.closed
        if isinstance(message, PushRequest):
            if self._depth > 1:
                self._mailboxes[message.worker] = self._buffers[message.worker][message.buffer]
        elif isinstance(message, FetchRequest):
            self.fetches[message.worker] = message.number
        elif isinstance(message, Leave):
            self._left[message.worker] = message.why
        elif isinstance(message, Join | Attach):
            worker = message.worker
            self._left.pop(worker, None)
            self.lives[worker] = message.life
            self._answers[worker].clear()
            if isinstance(message, Attach):
                return []
            self.fetches[worker] = 0
        answers = self.server.hear(message, now_ns)
        for each in answers:
            self._keep(each)
        return answers

    def _keep(self, said: Said) -> None:
        if isinstance(said, Stop):
            return
        worker, incarnation, number = said[:3]
        answers = self._answers[worker]
        if isinstance(said, Grant):
            answers.pop((Ask.FETCH, number - 1), None)
            answers[Ask.FETCH, number] = Answer(Ask.FETCH, number, incarnation, said.version, said.slot, said.steps)
        else:
            answers.pop((Ask.PUSH, number - self._depth), None)
            answers[Ask.PUSH, number] = Answer(Ask.PUSH, number, incarnation, said.version, said.staleness, said.steps)
