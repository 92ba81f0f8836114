"""The servers' queues: one request is served at a time, first come first served.

A server with a core of its own is arithmetic: a request that arrives knows when it will have been served.
"""

from __future__ import annotations

from collections import deque

from asgd_lab import streams
from asgd_lab.backends.sim.clock import Alarm, Clock
from asgd_lab.backends.sim.sharing import Class, Sharing
from asgd_lab.hardware.costs import Costs
from asgd_lab.scenario.hardware import Server as ServerConfig

BLOCK = 1024


class Request(Alarm):
    """What a server serves; as an alarm, it waits for its service to end."""

    __slots__ = ("arrived", "ends", "queue", "started")
    queue: Queue
    arrived: int
    started: int
    """When its service began, or will begin."""
    ends: int
    """When it will have been served, as far as is known."""

    def serve(self) -> None:
        """It has been served."""
        raise NotImplementedError


class ServiceTimes:
    """The time of each service, in order: constant, or exponential around its mean."""

    __slots__ = ("_drawn", "_means", "_random")

    def __init__(self, config: ServerConfig, costs: Costs, seed: int, server: int) -> None:
        self._means = (costs.server_push_ns, costs.server_fetch_ns)
        self._random = streams.generator(seed, server, "service") if config.distribution == "exponential" else None
        self._drawn: list[float] = []

    @property
    def constant(self) -> tuple[int, int] | None:
        """Nanoseconds of a push and of a fetch, where they do not vary."""
        return self._means if self._random is None else None

    def next_ns(self, fetch: bool) -> int:
        """The next service's nanoseconds."""
        mean = self._means[fetch]
        if self._random is None or not mean:
            return mean
        if not self._drawn:
            self._drawn = self._random.standard_exponential(BLOCK)[::-1].tolist()
        return round(mean * self._drawn.pop())


class Queue:
    """What is counted of a server: the integrals of being busy and of the number of requests there."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.free_at = 0  # when all that has arrived will have been served
        self.busy_sum = 0  # service of all that has arrived
        self.present = 0
        self.present_sum = 0
        self.down_until = 0

    def arrival(self, now: int) -> None:
        """A request is there."""
        self.present += 1
        self.present_sum -= now

    def departure(self, now: int) -> None:
        """It has been served, or is gone."""
        self.present -= 1
        self.present_sum += now

    def submit(self, request: Request, fetch: bool) -> None:
        """Serve a request: its `serve` is called when that is done, with `started` set."""
        raise NotImplementedError

    def go_down(self, until: int) -> None:
        """Serve nobody before then; a service that is under way begins anew."""
        raise NotImplementedError

    @property
    def busy_ns(self) -> int:
        """Until now."""
        return self.busy_sum - max(0, self.free_at - max(self.clock.now, self.down_until))

    @property
    def present_ns(self) -> int:
        """The integral of the number of requests until now, those in service included."""
        return self.present_sum + self.present * self.clock.now


class Fcfs(Queue):
    """One server with a core of its own."""

    def __init__(self, clock: Clock, services: ServiceTimes) -> None:
        super().__init__(clock)
        self._services, self._steady = services, services.constant
        self.requests: dict[Request, None] = {}  # those that are there, in order of arrival

    def submit(self, request: Request, fetch: bool) -> None:
        """Serve a request: its `serve` is called when that is done, with `started` set."""
        now = self.clock.now
        service_ns = self._steady[fetch] if self._steady is not None else self._services.next_ns(fetch)
        started = self.free_at
        if started <= now:
            started = now
            if not service_ns and not self.requests:  # the last one may end now, and not have been told
                request.started = now
                request.serve()
                return
        request.started = started
        self.free_at = request.ends = end = started + service_ns
        self.busy_sum += service_ns
        self.requests[request] = None
        self.present += 1
        self.present_sum -= now
        request.set(self.clock, end, _served)

    def go_down(self, until: int) -> None:
        """All that is there is served later, in the same order; those who ring before then wait on."""
        now = self.clock.now
        self.down_until = begin = max(self.down_until, until)
        for request in self.requests:
            service_ns = request.ends - request.started
            self.busy_sum += max(0, now - request.started)  # done in vain
            request.started, begin = begin, begin + service_ns
            request.ends = begin
            request.then = _served_later
        self.free_at = max(self.free_at, begin)


def _served(request: Request) -> None:
    queue: Fcfs = request.queue  # type: ignore[assignment]
    queue.present -= 1
    queue.present_sum += queue.clock.now
    del queue.requests[request]
    request.serve()


def _served_later(request: Request) -> None:
    """It would have been served by now, had the server not been down."""
    request.set(request.queue.clock, request.ends, _served)


class OnCores(Queue):
    """One server on a core of a node that workers share."""

    def __init__(self, clock: Clock, services: ServiceTimes, cores: Sharing, one: Class) -> None:
        super().__init__(clock)
        self._services, self._cores, self._one = services, cores, one
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._serving = False
        self._since = 0  # when the service that is under way has begun

    @property
    def busy_ns(self) -> int:
        """Until now."""
        return self.busy_sum + (self.clock.now - self._since if self._serving else 0)

    def submit(self, request: Request, fetch: bool) -> None:
        """Serve a request, on its turn."""
        self.arrival(self.clock.now)
        self._waiting.append((request, fetch))
        if not self._serving:
            self._serve_next()

    def _serve_next(self) -> None:
        while self._waiting and not self._serving:
            request, fetch = self._waiting.popleft()
            request.started = self.clock.now
            service_ns = self._services.next_ns(fetch)
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
        request.serve()
