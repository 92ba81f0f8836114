"""The server process: hears the workers, lets the protocol's server decide, and answers; it alone writes the versions.

Requests that wait together are served in the order in which they were sent. An emulated server waits out its stated
time a request, during which it serves nobody else: first come, first served.

It stops with its parent: the parent's socket reports the parent's death as the end of its stream.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence

import numpy as np
import torch

from asgd_lab.backends.build import build_algorithm, build_budget, build_server, build_task
from asgd_lab.backends.process import channel, snapshots
from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.channel import Answer, Ask, Request
from asgd_lab.backends.process.clock import now_ns, precise_timers, sleep_until
from asgd_lab.backends.process.plan import EFFECT_ROW, KIND, PUSH_ROW, Plan, settle
from asgd_lab.hardware.costs import Costs, nanoseconds
from asgd_lab.protocol.grants import DROPPED, FetchGrant, Grant
from asgd_lab.protocol.replica import Arrived
from asgd_lab.record.rowfile import RowFile

PARENT = -1
APPLY, GRANT = KIND["apply"], KIND["grant"]


def main(plan: Plan, ends: Sequence[socket.socket], parent: socket.socket) -> None:
    """The process: wait until every worker is ready, start the clock, serve until all have left."""
    settle(plan, "server")
    ServerProcess(plan, ends, parent).run()


class ServerProcess:
    """The protocol's server and its means."""

    def __init__(self, plan: Plan, ends: Sequence[socket.socket], parent: socket.socket) -> None:
        self.plan, self.ends, self.parent = plan, ends, parent
        scenario = plan.scenario
        task = build_task(scenario, plan.data.tensors())
        mailboxes = {worker: plan.mailboxes.vector(worker) for worker in range(scenario.workers)}
        self.server = build_server(
            task,
            build_algorithm(scenario),
            build_budget(scenario),
            torch.clone(plan.slots.vector(0)),
            mailboxes,
            lambda slot: plan.slots.vector(slot, writable=True),
        )
        self.effects = RowFile(plan.parts / "server.effects", EFFECT_ROW)
        self.pushes = RowFile(plan.parts / "server.pushes", PUSH_ROW)
        self.snapshots = snapshots.of_server(plan)
        self.emulated = scenario.backend.device == "emulated"
        self.costs = Costs.of(scenario.hardware, plan.size_bytes)
        if self.emulated:
            precise_timers()
        self.sequences = [0] * scenario.workers
        self.sent_ns = [0] * scenario.workers  # each worker's request that is not answered yet
        self.served = [(0, 0)] * scenario.workers  # when the service of each worker's push began, and how long it took
        self.words = plan.board.server
        self.start_ns = self.end_ns = 0
        self.deadline_ns: int | None = None
        self.selector = selectors.DefaultSelector()
        for worker, end in enumerate(ends):
            self.selector.register(end, selectors.EVENT_READ, worker)
        self.selector.register(parent, selectors.EVENT_READ, PARENT)

    def run(self) -> None:
        """Until the last member has left."""
        try:
            if self._gather():
                self._serve()
        finally:
            self.effects.close()
            self.pushes.close()
            self._hand_over()

    def _gather(self) -> bool:
        """Wait until all are ready, then start the clock; False if somebody died or the parent wants no more."""
        waiting = set(range(len(self.ends)))
        while waiting:
            for key, _ in self.selector.select():
                if key.data == PARENT or channel.hear(self.ends[key.data]) is None:
                    return False
                waiting.discard(key.data)
        for worker in range(len(self.ends)):
            self.server.on_join(worker)
        self.start_ns = self.end_ns = now_ns()
        self.words[Board.START_NS] = self.start_ns
        if self.snapshots is not None and self.server.parameters is not None and self.snapshots.due(0):
            self.snapshots.take(0, 0, 0, self.server.parameters.current)
        for end in self.ends:
            channel.answer(end, Answer(0, 0, self.start_ns))
        return True

    def _serve(self) -> None:
        seconds = self.plan.scenario.budget.seconds
        self.deadline_ns = None if seconds is None else self.start_ns + nanoseconds(seconds)
        while self.server.members:
            heard: list[tuple[int, Request | None]] = []
            for key, _ in self.selector.select(self._time_left_s()):
                if key.data != PARENT:
                    heard.append((key.data, channel.hear(self.ends[key.data])))
                elif not self._obey():
                    return
            heard.sort(key=lambda item: item[1].sent_ns if item[1] is not None else 0)
            for worker, request in heard:
                if self._time_left_s() == 0.0:
                    self._close(self.deadline_ns)
                self._handle(worker, request)
            if self._time_left_s() == 0.0:
                self._close(self.deadline_ns)

    def _time_left_s(self) -> float | None:
        """Seconds until the run has to be closed; None if no clock will do that."""
        if self.deadline_ns is None or self.server.closed:
            return None
        return max(0.0, (self.deadline_ns - now_ns()) * 1e-9)

    def _obey(self) -> bool:
        """The parent's only word is stop; its death is the end of the run."""
        if not self.parent.recv(1):
            self.words[Board.STOP] = 1
            return False
        if not self.server.closed:
            self._close(None)
        return True

    def _handle(self, worker: int, request: Request | None) -> None:
        begun = now_ns()
        if request is None or request.ask == Ask.LEAVE:
            self.selector.unregister(self.ends[worker])
            if worker in self.server.members:
                self._deliver(self.server.on_leave(worker))
            return
        self.sent_ns[worker] = request.sent_ns
        is_fetch = request.ask == Ask.FETCH
        stated_ns = self.costs.server_fetch_ns if is_fetch else self.costs.server_push_ns
        if self.emulated and not self.server.closed:  # an application is visible at the end of its service
            sleep_until(begun + stated_ns)
            if self._time_left_s() == 0.0:
                self._close(self.deadline_ns)
        in_time = not self.server.closed
        if is_fetch:
            grants = self.server.on_fetch(worker)
        else:
            self.sequences[worker] = request.sequence
            version = self.server.version
            grants = self.server.on_push(
                Arrived(worker, 1, request.sequence, request.base, request.steps, request.loss, request.error)
            )
            if self.server.version != version:
                self._made_version()
        served_ns = now_ns() - begun
        if is_fetch:
            self._note(GRANT, worker, begun, served_ns)
        else:
            self.served[worker] = (begun, served_ns)
            if in_time:
                self.end_ns = begun + served_ns
        self._deliver(grants, served_ns, worker)
        if self.server.closed and not self.words[Board.STOP]:
            self._close(self.end_ns)

    def _note(
        self, kind: int, worker: int, begun: int, served_ns: int, version: int = -1, staleness: int = -1, steps: int = 0
    ) -> None:
        round, start = self.sequences[worker] + (kind == GRANT), begun - self.start_ns
        waited_ns, size = begun - self.sent_ns[worker], self.plan.size_bytes
        self.effects.add(PARENT, round, kind, start, start + served_ns, waited_ns, version, staleness, steps, size, 0)

    def _made_version(self) -> None:
        server = self.server
        self.words[Board.VERSION] = server.version
        self.words[Board.MINIBATCHES] = server.minibatches
        self.plan.board.training_error[0] = server.training_error
        if self.snapshots is not None and server.parameters is not None and self.snapshots.due(server.minibatches):
            self.snapshots.take(now_ns() - self.start_ns, server.version, server.minibatches, server.parameters.current)

    def _close(self, when_ns: int | None) -> None:
        """The run is over: workers stop at their next minibatch."""
        self.end_ns = now_ns() if when_ns is None else when_ns
        self.words[Board.STOP] = 1
        self._deliver(self.server.close())

    def _deliver(self, grants: list[Grant], served_ns: int = 0, served: int = PARENT) -> None:
        """Answer; who was not just `served` has waited for its release until now."""
        parameters = self.server.parameters
        now = now_ns()
        for grant in grants:
            end = self.ends[grant.worker]
            waited_ns = now - self.sent_ns[grant.worker] - (served_ns if grant.worker == served else 0)
            if isinstance(grant, FetchGrant):
                slot = parameters.pinned(grant.worker) if parameters is not None and grant.steps else 0
                channel.answer(end, Answer(grant.version, slot, grant.steps, waited_ns))
            else:
                self.pushes.add(grant.version, grant.staleness, grant.steps)
                self._note(APPLY, grant.worker, *self.served[grant.worker], grant.version, grant.staleness, grant.steps)
                if grant.version != DROPPED:
                    self.words[Board.STALENESS] = grant.staleness
                channel.answer(end, Answer(grant.version, grant.staleness, grant.steps, waited_ns))

    def _hand_over(self) -> None:
        """Leave the final parameters and the end of the run's clock for the parent."""
        parameters = self.server.parameters
        params = parameters.current.numpy() if parameters is not None else np.empty(0, np.float32)
        np.savez(self.plan.parts / "final.npz", params=params, end_ns=np.int64(self.end_ns - self.start_ns))
