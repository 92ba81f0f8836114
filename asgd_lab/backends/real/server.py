"""The server process: hears the workers, lets the protocol's server decide, and answers; it alone writes the versions.

Waiting requests are served in the order of sending, if all senders share the server's clock. The server ends when it
hears the death of its supervisor.
"""

from __future__ import annotations

import contextlib
import heapq
from time import monotonic_ns as now_ns
from typing import Any

from asgd_lab import choices, users_errors
from asgd_lab.backends.build import build_algorithm
from asgd_lab.backends.event_log import Attach
from asgd_lab.backends.real.emulation import Arrivals
from asgd_lab.backends.real.failure_detector import Heartbeat
from asgd_lab.backends.real.plan import Plan, settle
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.service import Service
from asgd_lab.backends.real.transport import (
    SUPERVISOR,
    Connected,
    Failed,
    Heard,
    NewServer,
    Resending,
    Saved,
    Sign,
)
from asgd_lab.protocol.messages import (
    FetchRequest,
    Join,
    Leave,
    PushRequest,
    Wake,
    Why,
)


def main(plan: Plan, place: Any) -> None:
    """The process: wait until every worker is ready, start the clock, serve until all have left."""
    settle(plan, "server")
    brought = ", ".join(choices.brought(plan.scenario.algorithm))
    with users_errors.failing(brought, passed=True) if brought else contextlib.nullcontext():
        ServerProcess(plan, place).run()


class ServerProcess:
    """The protocol's server and its means."""

    def __init__(self, plan: Plan, place: Any) -> None:
        self.plan, scenario = plan, plan.scenario
        self.emulated = scenario.backend.device == "emulated"
        precise = self.emulated and build_algorithm(scenario).overlaps  # requests arrive while no worker waits
        self.end = plan.transport.server_end(place, precise)
        self.heartbeat = Heartbeat(plan)
        self.service = Service(plan, self.end, self.heartbeat)
        self.server, self.logged, self.words = self.service.server, self.service.logged, self.service.words
        self.detector, self.checkpointer = self.service.detector, self.service.checkpointer
        faults = scenario.faults
        self.restarts = faults is not None and faults.on_death == "restart"
        self.away = self.logged.away(self.restarts)  # workers expected to rejoin
        self.deaf = set(range(scenario.workers))  # to workers, until they resend
        self.ready: dict[int, Join | Attach] = {}  # messages of ready workers, before the clock starts
        self.arrivals = Arrivals()

    def run(self) -> None:
        """Serve until the last member has left."""
        if self.service.start_ns:
            self.service.publisher.show()
            if self.server.closed:
                self.words[Words.STOP] = 1
        for worker in range(self.plan.scenario.workers):
            self.end.tell(worker, NewServer())
        for worker, stop in self.logged.stops.items():  # its worker ignores one that it has heard
            self.end.tell(worker, stop)
        try:
            self._serve()
        finally:
            self.words[Words.FINISHED] = self.server.finished
            self.heartbeat.at_disk()
            self.logged.close()
            self.service.publisher.hand_over()

    def _serve(self) -> None:
        while not self.service.start_ns or self.server.members or (self.away and not self.server.finished):
            heard = self.end.hear(self.heartbeat.rest(self._patience_s()))
            if self.arrivals.next_ns is not None:
                heard = list(heapq.merge(self.arrivals.take(now_ns()), heard, key=lambda each: each.sent_ns))
            self.heartbeat.busy()
            for each in heard:
                self.service.end_in_time()
                if not self._handle(each):
                    return
                self.heartbeat.served()
            self.service.end_in_time()
            if self.service.start_ns:
                self._look()

    def _patience_s(self) -> float | None:
        """Seconds until the next action that needs no message."""
        start_ns, server = self.service.start_ns, self.server
        if not start_ns:
            return None
        due_ns = self.detector.due_ns
        if (lasts_ns := self.service.lasts_ns) is not None and not server.closed:
            due_ns = min(due_ns, start_ns + lasts_ns)
        if server.wake_ns is not None:
            due_ns = min(due_ns, start_ns + server.wake_ns)
        if (arrives_ns := self.arrivals.next_ns) is not None:
            due_ns = min(due_ns, arrives_ns)
        if (save_ns := self.checkpointer.due_ns) is not None and not server.finished:
            due_ns = min(due_ns, start_ns + save_ns)
        return max(0.0, (due_ns - now_ns()) * 1e-9)

    def _look(self) -> None:
        """Do all actions that are due without a message: a wake-up, a checkpoint, failing a silent worker."""
        wake_ns = self.server.wake_ns
        if wake_ns is not None and self.service.clock() >= wake_ns:
            self.service.commit(Wake())
        if self.checkpointer.is_wanted:
            self.checkpointer.look(self.service.clock())
            for fetch in self.checkpointer.finish(self.service.clock()):
                self.service.serve(fetch, now_ns())
        nobody_comes = not (self.away or self.deaf or self.checkpointer.under_way or self.arrivals.next_ns is not None)
        if nobody_comes and self.server.is_stuck:
            self.service.close(self.service.clock(), Why.STUCK)
        if now_ns() >= self.detector.due_ns:
            for worker in self.detector.silent():
                self._out(worker, Why.SILENT)
                self.end.report(Sign.SILENT, worker)

    def _handle(self, heard: Heard) -> bool:
        """Handle a message; False if it ends the run at once."""
        message = heard.message
        if type(message) is PushRequest or type(message) is FetchRequest:
            self._request(heard)
        elif heard.sender == SUPERVISOR:
            return self._obey(message)
        elif message is None:
            self._gone(heard.sender)
        elif isinstance(message, Resending):
            self.deaf.discard(heard.sender)
        elif heard.sender in self.deaf:
            pass
        elif isinstance(message, Join | Attach):
            self._admit(message)
        elif self._is_of_member(message):
            if isinstance(message, Leave):
                self._out(message.worker, Why(message.why))
            elif isinstance(message, Saved):
                self.checkpointer.saved(message)
        elif isinstance(message, Saved):
            self.end.tell(message.worker, Failed(message.worker, message.incarnation))
        return True

    def _obey(self, message: object) -> bool:
        """Obey the supervisor; its death ends the run."""
        if isinstance(message, Connected):
            self.deaf.discard(message.worker)
            return True
        if message is None:
            self.words[Words.STOP] = 1
            return False
        if self.service.start_ns and not self.server.closed:
            self.service.close(self.service.clock())
        return bool(self.service.start_ns)

    # ------------------------------------------------------------------ workers come and go

    def _is_of_member(self, message: Any) -> bool:
        return bool(message.incarnation == self.logged.incarnations[message.worker])

    def _gone(self, worker: int) -> None:
        """A worker's process has died."""
        self.ready.pop(worker, None)
        self.arrivals.drop(worker)
        if worker in self.server.members:
            self._out(worker, Why.DIED)

    def _out(self, worker: int, why: Why) -> None:
        """Remove a worker from the members."""
        incarnation = self.server.standing(worker)[0]
        self.checkpointer.gone(worker)
        if why == Why.NOT_FINITE or (self.restarts and why != Why.DONE):
            self.away.add(worker)
        self.service.commit(Leave(worker, incarnation, why))

    def _admit(self, message: Join | Attach) -> None:
        """A worker begins a life, or resends that message."""
        worker, life = message
        if not self.service.start_ns:
            self.ready[worker] = message
            if len(self.ready) == self.plan.scenario.workers:
                self._start()
            return
        if self.logged.lives[worker] != life:
            if worker in self.server.members:
                self._out(worker, Why.DIED)
            self.away.discard(worker)
            self.service.commit(Join(worker, life))
            self.end.report(Sign.AWAKE, worker)
        if worker in self.server.members:
            self._welcome(worker)

    def _welcome(self, worker: int) -> None:
        self.detector.begins(worker)
        self.end.tell(worker, self.logged.welcome(worker, self.service.start_ns))

    def _start(self) -> None:
        """All workers are ready: start or resume the run's clock."""
        self.service.begin(self.plan.elapsed_ns)
        for worker, message in sorted(self.ready.items()):
            if isinstance(message, Attach) and worker in self.server.members:
                self.service.commit(message)
                continue
            if worker in self.server.members:
                self._out(worker, Why.DIED)
            self.service.commit(Join(worker, message.life))
        self.words[Words.START_NS] = self.service.start_ns
        self.service.publisher.look(self.service.clock())
        for worker in self.ready:
            self._welcome(worker)

    def _request(self, heard: Heard) -> None:
        """Handle a request, which may be resent."""
        begun = now_ns()
        worker, request = heard.sender, heard.message
        assert isinstance(request, FetchRequest | PushRequest)
        if worker in self.deaf:
            return
        if self.emulated and heard.sent_ns > begun:  # on its way
            self.arrivals.add(heard)
        elif self._is_of_member(request):
            self.service.hear(heard, begun)
        else:
            self.end.tell(worker, Failed(worker, request.incarnation))
