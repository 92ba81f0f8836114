"""The servers' queues: one request is served at a time, first come first served.

A server with a core of its own is arithmetic: the end of a request's service is known when it arrives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from asgd_lab import streams
from asgd_lab.backends.sim.clock import FAR, Alarm, Clock
from asgd_lab.backends.sim.sharing import Class, Sharing
from asgd_lab.scenario.hardware import Server as ServerConfig

BLOCK = 1024


class Request(Alarm):
    """A request in a server's queue; as an alarm, it waits for the end of its service."""

    __slots__ = ("arrived", "ends", "queue", "serve", "service_ns", "started")
    queue: Queue
    serve: Callable[[Any], object]
    """Called with the request when it has been served."""
    service_ns: int
    """The mean of its service, in nanoseconds."""
    arrived: int
    started: int
    """The start of its service, past or future; `FAR` if it is not known."""
    ends: int
    """The end of its service, as far as known."""


class ServiceTimes:
    """The time of each service, in order: constant, or exponential around its mean."""

    __slots__ = ("_drawn", "_random")

    def __init__(self, config: ServerConfig, seed: int, server: int) -> None:
        self._random = streams.generator(seed, server, "service") if config.distribution == "exponential" else None
        self._drawn: list[float] = []

    @property
    def constant(self) -> bool:
        """Whether each service takes as long as its mean."""
        return self._random is None

    def next_ns(self, mean_ns: int) -> int:
        """The nanoseconds of the next service, with this mean."""
        if self._random is None or not mean_ns:
            return mean_ns
        if not self._drawn:
            self._drawn = self._random.standard_exponential(BLOCK)[::-1].tolist()
        return round(mean_ns * self._drawn.pop())


class Queue:
    """A server's counters: the integrals of its busy state and of its number of requests."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.free_at = 0  # the end of the service of all arrived requests
        self.busy_sum = 0  # the service time of all arrived requests
        self._present = 0
        self.present_sum = 0
        self.down_until = 0

    def arrival(self, now: int) -> None:
        """Count a request that has arrived."""
        self._present += 1
        self.present_sum -= now

    def departure(self, now: int) -> None:
        """Count a request that has been served or withdrawn."""
        self._present -= 1
        self.present_sum += now

    def submit(self, request: Request) -> None:
        """Serve a request: its `serve` is called when that is done, with `started` set."""
        raise NotImplementedError

    def go_down(self, until: int) -> None:
        """Stop until then; an interrupted service is repeated."""
        raise NotImplementedError

    @property
    def present(self) -> int:
        """The number of requests, including those in service."""
        return self._present

    @property
    def busy_ns(self) -> int:
        """Time of service until now."""
        return self.busy_sum - max(0, self.free_at - max(self.clock.now, self.down_until))

    @property
    def present_ns(self) -> int:
        """The integral of the number of requests up to now, including those in service."""
        return self.present_sum + self.present * self.clock.now


class Fcfs(Queue):
    """One server with a core of its own."""

    def __init__(self, clock: Clock, services: ServiceTimes) -> None:
        super().__init__(clock)
        self._services, self._is_constant = services, services.constant
        self.requests: dict[Request, None] = {}  # present requests, in order of arrival

    @property
    def present(self) -> int:
        """The number of requests, including those in service."""
        return len(self.requests)

    def submit(self, request: Request) -> None:
        """Serve a request: its `serve` is called when that is done, with `started` set."""
        now = self.clock.now
        service_ns = request.service_ns
        if not self._is_constant:
            service_ns = self._services.next_ns(service_ns)
        started = self.free_at
        if started <= now:
            if not service_ns and not self.requests:  # the last request may end now, and not have rung yet
                request.started = now
                request.serve(request)
                return
            started = now
        request.started = started
        self.free_at = request.ends = end = started + service_ns
        self.busy_sum += service_ns
        self.requests[request] = None
        self.present_sum -= now  # inlined: `arrival`
        request.set(self.clock, end, _served)

    def go_down(self, until: int) -> None:
        """Serve all present requests later, in the same order; a request that rings before then waits again."""
        now = self.clock.now
        self.down_until = begin = max(self.down_until, until)
        for request in self.requests:
            service_ns = request.ends - request.started
            self.busy_sum += max(0, now - request.started)  # the wasted service
            request.started, begin = begin, begin + service_ns
            request.ends = begin
            request.then = _served_later
        self.free_at = max(self.free_at, begin)


def _served(request: Request) -> None:
    queue: Fcfs = request.queue  # type: ignore[assignment]
    queue.present_sum += queue.clock.now  # inlined: `departure`
    del queue.requests[request]
    request.serve(request)


def _served_later(request: Request) -> None:
    """The service would have ended now if the server had not been down."""
    request.set(request.queue.clock, request.ends, _served)


class OnCores(Queue):
    """One server on a core of a node that workers share."""

    def __init__(self, clock: Clock, services: ServiceTimes, cores: Sharing, one: Class) -> None:
        super().__init__(clock)
        self._services, self._cores, self._one = services, cores, one
        self._waiting: deque[Request] = deque()
        self._serving = False
        self._since = 0  # the start of the current service

    @property
    def busy_ns(self) -> int:
        """Time of service until now."""
        return self.busy_sum + (self.clock.now - self._since if self._serving else 0)

    def submit(self, request: Request) -> None:
        """Serve a request in its turn."""
        request.started = FAR
        self.arrival(self.clock.now)
        self._waiting.append(request)
        if not self._serving:
            self._serve_next()

    def _serve_next(self) -> None:
        while self._waiting and not self._serving:
            request = self._waiting.popleft()
            request.started = self.clock.now
            service_ns = self._services.next_ns(request.service_ns)
            if not service_ns:
                self._end(request)
                continue
            self._serving, self._since = True, request.started
            self._cores.take(self._one, service_ns, lambda request=request: self._served(request))  # type: ignore[misc]

    def _served(self, request: Request) -> None:
        self._serving = False
        self._end(request)
        self._serve_next()

    def _end(self, request: Request) -> None:
        now = self.clock.now
        self.departure(now)
        self.busy_sum += now - request.started
        request.serve(request)
