"""The protocol's server and the record of what it was told, which is also what the next server recovers from.

A version lies in shared memory before the event that made it is recorded, and the event is recorded, by one 8-byte
store, before anybody hears of it. So a server that is killed, wherever it was, leaves behind a row of events that
happened, and the versions that belong to them. The next one reads the row, keeps the books without computing, and is
the one that died, but for requests that it has not recorded: these were not answered, and are asked again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from asgd_lab.backends import history
from asgd_lab.backends.build import build_algorithm, build_budget, build_server, build_task
from asgd_lab.backends.real.channel import Answer, Ask
from asgd_lab.backends.real.plan import Plan
from asgd_lab.protocol.events import Event, Kind, Why, feed
from asgd_lab.protocol.grants import FetchGrant, Grant
from asgd_lab.record.rowfile import RowFile
from asgd_lab.tasks.base import CPU


class LoggedServer:
    """`server` is told by `commit` alone. Times are nanoseconds of the run's own clock.

    `reading` is called for each event of the past.
    """

    def __init__(self, plan: Plan, reading: Callable[[], None] = lambda: None) -> None:
        self._plan = plan
        scenario = plan.scenario
        task, algorithm = build_task(scenario, plan.data.tensors(), checked=True, device=CPU), build_algorithm(scenario)
        past = history.read(plan.events) if plan.events.exists() else []
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
            slot=lambda slot: plan.slots.vector(slot, writable=True),
            state=lambda index: plan.states.vector(index, writable=True),
            counting=bool(past),
        )
        self._rows = RowFile(plan.events, history.FORMAT, go_on=True)
        self.end_ns = 0  # of the last push that was in time, or when the run was closed
        self.fetches = [0] * scenario.workers  # each worker's last fetch, in this life
        self.lives = [0] * scenario.workers  # the number of each worker's life
        self._answers: list[dict[tuple[int, int], Answer]] = [{} for _ in range(scenario.workers)]
        self._left: dict[int, int] = {}  # who is out, and why
        for happened in past:
            reading()
            self._tell(happened.event)
            self._mark(*happened)
        if self.server.parameters is not None:
            self.server.parameters.counting = False

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """No more events."""
        self._rows.close()

    def commit(self, event: Event, sent_ns: int, begun_ns: int, clock: Callable[[], int]) -> list[Grant]:
        """Tell the server, and record it as ended by then; what it grants may be told now."""
        grants = self._tell(event)
        ended_ns = clock()
        self._rows.add(*event, sent_ns, begun_ns, ended_ns)
        self._mark(event, sent_ns, begun_ns, ended_ns)
        return grants

    def digest(self, now_ns: int) -> None:
        """Record a hash of the newest version."""
        parameters = self.server.parameters
        assert parameters is not None
        event = Event(Kind.DIGEST, number=self.server.version, detail=history.digest(parameters.current))
        self._rows.add(*event, now_ns, now_ns, now_ns)

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

    def _mark(self, event: Event, sent_ns: int, begun_ns: int, ended_ns: int) -> None:
        if (event.kind == Kind.PUSH and self._in_time) or event.kind == Kind.CLOSE:
            self.end_ns = ended_ns

    def _tell(self, event: Event) -> list[Grant]:
        kind, worker = event.kind, event.worker
        self._in_time = not self.server.closed
        if kind == Kind.PUSH:
            if self._depth > 1:
                self._mailboxes[worker] = self._buffers[worker][event.detail]
        elif kind == Kind.FETCH:
            self.fetches[worker] = event.number
        elif kind == Kind.LEAVE:
            self._left[worker] = event.detail
        elif kind in (Kind.JOIN, Kind.ATTACH):
            self._left.pop(worker, None)
            self.lives[worker] = event.number
            if kind == Kind.JOIN:
                self.fetches[worker] = 0
            self._answers[worker].clear()
        grants = feed(self.server, event)
        for grant in grants:
            self._keep(grant)
        return grants

    def _keep(self, grant: Grant) -> None:
        worker, parameters = grant.worker, self.server.parameters
        answers = self._answers[worker]
        if isinstance(grant, FetchGrant):
            number = self.fetches[worker]
            slot = parameters.pinned(worker) if parameters is not None and grant.steps else 0
            incarnation = self.server.standing(worker)[0]
            answers.pop((Ask.FETCH, number - 1), None)
            answers[Ask.FETCH, number] = Answer(Ask.FETCH, number, incarnation, grant.version, slot, grant.steps)
        else:
            number = grant.sequence
            answers.pop((Ask.PUSH, number - self._depth), None)
            answers[Ask.PUSH, number] = Answer(
                Ask.PUSH, number, grant.incarnation, grant.version, grant.staleness, grant.steps
            )
