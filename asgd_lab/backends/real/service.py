"""Serves requests: passes them to the logged server, answers, and publishes the results, on the run's own clock.

An emulated server waits for its stated time per request, and serves no other request meanwhile.
"""

from __future__ import annotations

from time import monotonic_ns as now_ns

from asgd_lab.backends.event_log import UNKNOWN, Attach
from asgd_lab.backends.real.checkpoints import Checkpointer
from asgd_lab.backends.real.emulation import precise_timers, wait_out
from asgd_lab.backends.real.failure_detector import FailureDetector, Heartbeat
from asgd_lab.backends.real.logged_server import LoggedServer
from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.publishing import Publisher
from asgd_lab.backends.real.transport import SUPERVISOR, Heard, ServerEnd
from asgd_lab.hardware.costs import Costs, nanoseconds
from asgd_lab.protocol.messages import (
    DROPPED,
    Ack,
    Answer,
    Close,
    FetchRequest,
    Grant,
    Message,
    PushRequest,
    Why,
)


class Service:
    """The logged server with its publisher, checkpointer and failure detector."""

    def __init__(self, plan: Plan, end: ServerEnd, heartbeat: Heartbeat) -> None:
        scenario = plan.scenario
        self.end, self.heartbeat = end, heartbeat
        self.logged = LoggedServer(plan, end.memory, heartbeat.at_disk)
        self.server = self.logged.server
        self.publisher = Publisher(plan, self.logged, heartbeat)
        self.detector = FailureDetector(plan, self.server)
        self.checkpointer = Checkpointer(plan, self.logged, heartbeat, end.tell)
        self.emulated = scenario.backend.device == "emulated"
        self.costs = Costs.of(scenario.hardware, plan.size_bytes)
        if self.emulated:
            precise_timers()
        # By worker and part: the time of the last request.
        self.sent_ns: list[dict[int, int]] = [{} for _ in range(scenario.workers)]
        words = plan.transport.words
        self.words = words.of_server()
        self.worker_words = [words.of(worker) for worker in range(scenario.workers)]
        self.start_ns = self.words[Words.START_NS]
        seconds = scenario.budget.seconds
        self.lasts_ns = None if seconds is None else nanoseconds(seconds)

    def clock(self) -> int:
        """Nanoseconds of the run's own clock."""
        return now_ns() - self.start_ns

    def begin(self, elapsed_ns: int) -> None:
        """Start or resume the run's clock."""
        self.start_ns = now_ns() - elapsed_ns

    def end_in_time(self) -> None:
        """Close the run if its time is over."""
        if self.lasts_ns is None or self.server.closed or not self.start_ns:
            return
        if now_ns() >= self.start_ns + self.lasts_ns:
            self.close(self.lasts_ns)

    def hear(self, heard: Heard, begun: int) -> None:
        """Handle a member's request, which may be resent."""
        request = heard.message
        assert isinstance(request, FetchRequest | PushRequest)
        if not self.logged.knows(request):
            self.detector.asked(request.worker)
            self.serve(heard, begun)
        elif (answer := self.logged.answer(request)) is not None:
            self.end.tell(request.worker, answer, 0, begun)
        else:
            self.detector.asked(request.worker)

    def serve(self, heard: Heard, begun: int) -> None:
        """Serve a request; during a checkpoint, hold a fetch."""
        request = heard.message
        assert isinstance(request, FetchRequest | PushRequest)
        is_fetch = type(request) is FetchRequest
        if is_fetch and self.checkpointer.under_way:
            self.checkpointer.hold(heard)
            return
        if self.emulated and not self.server.closed:  # an application is visible at the end of its service
            stated_ns = self.costs.server_fetch_ns if is_fetch else self.costs.server_push_ns
            self.heartbeat.busy(stated_ns)
            wait_out(self.words, Words.SERVED_NS, begun, begun + stated_ns, stated_ns)
            self.end_in_time()
        self.sent_ns[request.worker][request.part] = heard.sent_ns
        if self.publisher.measures and not is_fetch:
            self.publisher.measure(request.worker, request.number)
        self.commit(request, begun, heard)

    def commit(self, message: Message | Attach, begun: int = 0, heard: Heard | None = None) -> None:
        """Let the server hear a message, log it, and send the answers."""
        server, start_ns = self.server, self.start_ns
        version, closed = server.version, server.closed
        begun = begun or now_ns()
        at = begun - start_ns
        if heard is None:
            answers = self.logged.commit(message, at, self.clock)
        else:
            _, _, sent_ns, received_ns, heard_ns = heard
            received_ns = received_ns - start_ns if received_ns else UNKNOWN
            times = (sent_ns - start_ns, heard_ns - start_ns, received_ns, self.end.clock)
            answers = self.logged.commit(message, at, self.clock, *times)
        if server.version != version:
            self.publisher.show()
            self.publisher.look(self.clock())
        self._deliver(answers, now_ns() - begun, SUPERVISOR if heard is None else heard.sender)
        if server.closed and not closed and not isinstance(message, Close):  # the budget is used up
            self.words[Words.STOP] = 1

    def close(self, when_ns: int, why: Why = Why.STOPPED) -> None:
        """End the run at this time of its clock: workers stop at their next minibatch."""
        self.words[Words.STOP] = 1
        answers = self.logged.commit(Close(why), when_ns, lambda: when_ns)
        self._deliver(answers, 0, SUPERVISOR)

    def _deliver(self, answers: list[Answer], served_ns: int, served: int) -> None:
        """Send answers; a worker other than the `served` one has waited for its release until now."""
        now = now_ns()
        for answer in answers:
            worker, kind = answer.worker, type(answer)
            if kind is Ack and answer.version != DROPPED:  # type: ignore[union-attr]
                self.words[Words.STALENESS] = answer.staleness  # type: ignore[union-attr]
                self.worker_words[worker][Words.STALE] = answer.staleness  # type: ignore[union-attr]
            elif kind is Grant:
                self.checkpointer.granted(worker)
            elif kind is not Ack:  # a Stop, which answers no request
                self.end.tell(worker, answer, 0, now)
                continue
            self.detector.answered(worker)
            sent_ns = self.sent_ns[worker].get(answer.part, now)  # type: ignore[union-attr]
            waited_ns = now - sent_ns - (served_ns if worker == served else 0)
            self.end.tell(worker, answer, waited_ns, now)
