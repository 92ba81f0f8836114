"""The server process: hears the workers, lets the protocol's server decide, and answers; it alone writes the versions.

Requests that wait together are served in the order in which they were sent. An emulated server waits out its stated
time a request, during which it serves nobody else: first come, first served.

It stops with its parent: the parent's socket reports the parent's death as the end of its stream.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence
from time import monotonic_ns as now_ns

from asgd_lab.backends.event_log import Attach, Times
from asgd_lab.backends.real import channel
from asgd_lab.backends.real.channel import Answer, Ask, Order, Request
from asgd_lab.backends.real.checkpoints import Checkpointer
from asgd_lab.backends.real.emulation import Arrivals, precise_timers, wait_out
from asgd_lab.backends.real.failure_detector import FailureDetector, Heartbeat
from asgd_lab.backends.real.logged_server import LoggedServer
from asgd_lab.backends.real.plan import Plan, settle
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.publishing import Publisher
from asgd_lab.hardware.costs import Costs, nanoseconds
from asgd_lab.protocol.messages import (
    DROPPED,
    Ack,
    Close,
    FetchRequest,
    Join,
    Leave,
    Message,
    PushRequest,
    Stop,
    Wake,
    Why,
)
from asgd_lab.protocol.messages import Answer as Said

PARENT = -1


def main(plan: Plan, ends: Sequence[socket.socket], parent: socket.socket) -> None:
    """The process: wait until every worker is ready, start the clock, serve until all have left."""
    settle(plan, "server")
    ServerProcess(plan, ends, parent).run()


class ServerProcess:
    """The protocol's server and its means."""

    def __init__(self, plan: Plan, ends: Sequence[socket.socket], parent: socket.socket) -> None:
        self.plan, self.ends, self.parent = plan, list(ends), parent
        scenario = plan.scenario
        self.heartbeat = Heartbeat(plan)
        self.logged = LoggedServer(plan, self.heartbeat.at_disk)
        self.server = self.logged.server
        self.publisher = Publisher(plan, self.logged, self.heartbeat)
        self.emulated = scenario.backend.device == "emulated"
        self.costs = Costs.of(scenario.hardware, plan.size_bytes)
        if self.emulated:
            precise_timers()
        self.sent_ns = [0] * scenario.workers  # each worker's last request
        self.words = plan.progress.words_of_server()
        self.start_ns = self.words[Words.START_NS]
        seconds = scenario.budget.seconds
        self.lasts_ns = None if seconds is None else nanoseconds(seconds)
        self.detector = FailureDetector(plan, self.server)
        self.checkpointer = Checkpointer(plan, self.logged, self.heartbeat, self._answer)
        faults = scenario.faults
        self.restarts = faults is not None and faults.on_death == "restart"
        self.away: set[int] = self.logged.away(self.restarts)  # who is out, and comes back
        self.deaf = set(range(scenario.workers))  # to whom, until they begin again
        self.ready: dict[int, Request] = {}  # who has said so before the clock starts
        self.arrivals = Arrivals()
        precise = self.emulated and scenario.algorithm.name == "downpour"  # epoll counts in milliseconds
        self.selector = selectors.SelectSelector() if precise else selectors.DefaultSelector()
        for worker, end in enumerate(self.ends):
            self.selector.register(end, selectors.EVENT_READ, worker)
        self.selector.register(parent, selectors.EVENT_READ, PARENT)

    def run(self) -> None:
        """Until the last member has left."""
        if self.start_ns:
            self.publisher.show()
            if self.server.closed:
                self.words[Words.STOP] = 1
        for end in self.ends:
            channel.answer(end, Answer(Ask.AGAIN, 0, 0))
        try:
            self._serve()
        finally:
            self.words[Words.FINISHED] = self.server.finished
            self.heartbeat.at_disk()
            self.logged.close()
            self.publisher.hand_over()

    def _serve(self) -> None:
        while not self.start_ns or self.server.members or (self.away and not self.server.finished):
            heard: list[tuple[int, Request | None]] = []
            ordered = False
            for key, _ in self.selector.select(self.heartbeat.rest(self._patience_s())):
                if key.data == PARENT:
                    ordered = True
                else:
                    heard.append((key.data, channel.hear(self.ends[key.data])))
            heard += self.arrivals.take(now_ns())
            if len(heard) > 1:
                heard.sort(key=lambda item: item[1].sent_ns if item[1] is not None else 0)
            self.heartbeat.busy()
            for worker, request in heard:
                self._end_in_time()
                self._handle(worker, request)
                self.heartbeat.served()
            self._end_in_time()
            if ordered and not self._obey():
                return
            if self.start_ns:
                self._save()
            if self.start_ns and now_ns() >= self.detector.due_ns:
                for worker in self.detector.silent():
                    self._out(worker, Why.SILENT)
                    channel.order(self.parent, Order.SILENT, worker)

    def _patience_s(self) -> float | None:
        """Seconds until something has to be done though nobody says a word."""
        if not self.start_ns:
            return None
        times = [self.detector.due_ns]
        if self.lasts_ns is not None and not self.server.closed:
            times.append(self.start_ns + self.lasts_ns)
        if self.arrivals.next_ns is not None:
            times.append(self.arrivals.next_ns)
        if self.checkpointer.due_ns is not None and not self.server.finished:
            times.append(self.start_ns + self.checkpointer.due_ns)
        return max(0.0, (min(times) - now_ns()) * 1e-9)

    def _end_in_time(self) -> None:
        if self.lasts_ns is None or self.server.closed or not self.start_ns:
            return
        if now_ns() >= self.start_ns + self.lasts_ns:
            self._close(self.lasts_ns)

    def _save(self) -> None:
        self.checkpointer.look(self._clock())
        for worker, request in self.checkpointer.finish(self._clock()):
            self._serve_request(worker, request, now_ns())

    def _clock(self) -> int:
        return now_ns() - self.start_ns

    def _obey(self) -> bool:
        """Do what the parent says; its death is the end of the run."""
        order = channel.obey(self.parent)
        if order is None:
            self.words[Words.STOP] = 1
            return False
        word, worker, end = order
        if word == Order.PROCESS:
            assert end is not None
            self._hear_out(worker)
            self.ends[worker] = end
            self.deaf.discard(worker)
            self.selector.register(end, selectors.EVENT_READ, worker)
            return True
        if not self.start_ns:
            return False
        if not self.server.closed:
            self._close(self._clock())
        return True

    def _hear_out(self, worker: int) -> None:
        """A process is dead: what it had said counts, then it is out."""
        end = self.ends[worker]
        if end.fileno() < 0:
            return
        while (request := channel.hear(end)) is not None:
            self._handle(worker, request)
        self._gone(worker)

    def _gone(self, worker: int) -> None:
        self.selector.unregister(self.ends[worker])
        self.ends[worker].close()
        self.ready.pop(worker, None)
        self.arrivals.drop(worker)
        if worker in self.server.members:
            self._out(worker, Why.DIED)

    def _out(self, worker: int, why: Why) -> None:
        """It is no member any more."""
        incarnation = self.server.standing(worker)[0]
        self.checkpointer.gone(worker)
        if why == Why.NOT_FINITE or (self.restarts and why != Why.DONE):
            self.away.add(worker)
        self._commit(Leave(worker, incarnation, why))

    def _admit(self, worker: int, request: Request) -> None:
        """A worker begins a life, or says so again."""
        life = request.number
        if not self.start_ns:
            self.ready[worker] = request
            if len(self.ready) == len(self.ends):
                self._start()
            return
        if self.logged.lives[worker] != life:
            if worker in self.server.members:
                self._out(worker, Why.DIED)
            self.away.discard(worker)
            self._commit(Join(worker, life))
            channel.order(self.parent, Order.AWAKE, worker)
        if worker in self.server.members:
            self._welcome(worker)

    def _welcome(self, worker: int) -> None:
        self.detector.begins(worker)
        answer = self.logged.standing(worker)._replace(steps=self.start_ns)
        self._answer(worker, answer)

    def _start(self) -> None:
        """All are ready: the run's clock starts, or goes on."""
        self.start_ns = now_ns() - self.plan.elapsed_ns
        for worker, request in sorted(self.ready.items()):
            if request.detail and worker in self.server.members:
                self._commit(Attach(worker, request.number))
                continue
            if worker in self.server.members:
                self._out(worker, Why.DIED)
            self._commit(Join(worker, request.number))
        self.words[Words.START_NS] = self.start_ns
        self.publisher.look(self._clock())
        for worker in self.ready:
            self._welcome(worker)

    def _handle(self, worker: int, request: Request | None) -> None:
        begun = now_ns()
        if request is None:
            self._gone(worker)
            return
        kind, number = request.ask, request.number
        if kind == Ask.AGAIN or worker in self.deaf:
            if kind == Ask.AGAIN:
                self.deaf.discard(worker)
            return
        if kind == Ask.READY:
            self._admit(worker, request)
            return
        if request.sent_ns > begun:  # on an emulated way
            self.arrivals.add(worker, request)
            return
        if worker not in self.server.members or request.incarnation != self.server.standing(worker)[0]:
            if kind != Ask.LEAVE:
                self._answer(worker, Answer(Ask.OUT, 0, request.incarnation))
            return
        if kind == Ask.LEAVE:
            self._out(worker, Why(request.detail))
            return
        if kind == Ask.SAVED:
            self.checkpointer.saved(worker, number, request.detail)
            return
        known = self.logged.fetches[worker] if kind == Ask.FETCH else self.server.standing(worker)[1]
        if number <= known:  # said again to a new server
            answer = self.logged.answer(worker, kind, number)
            if answer is not None:
                self._answer(worker, answer._replace(released_ns=begun))
            else:
                self.detector.asked(worker)
            return
        self.detector.asked(worker)
        self._serve_request(worker, request, begun)

    def _serve_request(self, worker: int, request: Request, begun: int) -> None:
        is_fetch = request.ask == Ask.FETCH
        if is_fetch and self.checkpointer.under_way:
            self.checkpointer.hold(worker, request)
            return
        if self.emulated and not self.server.closed:  # an application is visible at the end of its service
            stated_ns = self.costs.server_fetch_ns if is_fetch else self.costs.server_push_ns
            self.heartbeat.busy(stated_ns)
            wait_out(self.words, Words.SERVED_NS, begun, begun + stated_ns, stated_ns)
            self._end_in_time()
        self.sent_ns[worker] = request.sent_ns
        _, incarnation, number, _, base, steps, detail, loss, error = request
        message: FetchRequest | PushRequest
        if is_fetch:
            message = FetchRequest(worker, incarnation, number, bool(detail))
        else:
            size = self.plan.size_bytes
            message = PushRequest(worker, incarnation, number, base, steps, loss, error, detail, size_bytes=size)
            self.publisher.measure(worker, number)
        self._commit(message, request.sent_ns, begun)

    def _commit(self, message: Message | Attach, sent: int = 0, begun: int = 0) -> None:
        """Tell the server, keep the record, answer."""
        version, start_ns = self.server.version, self.start_ns
        closed = self.server.closed
        begun = begun or now_ns()
        times = Times((sent or begun) - start_ns, begun - start_ns, begun - start_ns, 0)
        grants = self.logged.commit(message, times, self._clock)
        if self.server.version != version:
            self.publisher.show()
            self.publisher.look(self._clock())
        served_ns = now_ns() - begun
        self._deliver(grants, served_ns, PARENT if isinstance(message, Close | Wake) else message.worker)
        if self.server.closed and not closed:  # the budget is used up
            self.words[Words.STOP] = 1

    def _close(self, when_ns: int) -> None:
        """The run is over, at this time of its clock: workers stop at their next minibatch."""
        self.words[Words.STOP] = 1
        grants = self.logged.commit(Close(Why.STOPPED), Times.at(when_ns), lambda: when_ns)
        self._deliver(grants, 0, PARENT)

    def _deliver(self, grants: list[Said], served_ns: int, served: int) -> None:
        """Answer; who was not just `served` has waited for its release until now."""
        now = now_ns()
        for grant in grants:
            worker = grant.worker
            if isinstance(grant, Stop):
                continue
            if isinstance(grant, Ack):
                kind, number = Ask.PUSH, grant.number
                if grant.version != DROPPED:
                    self.words[Words.STALENESS] = grant.staleness
                    self.plan.progress.worker[worker, Words.STALE] = grant.staleness
            else:
                kind, number = Ask.FETCH, self.logged.fetches[worker]
                self.checkpointer.granted(worker)
            answer = self.logged.answer(worker, kind, number)
            if answer is not None and self.ends[worker].fileno() >= 0:
                waited_ns = now - self.sent_ns[worker] - (served_ns if worker == served else 0)
                self.detector.answered(worker)
                self._answer(worker, answer._replace(waited_ns=waited_ns, released_ns=now))

    def _answer(self, worker: int, answer: Answer) -> None:
        channel.answer(self.ends[worker], answer)
