"""The servers' queues: one request is served at a time, first come first served.

One server is arithmetic: a request that arrives knows when it will have been served. Of several servers that share a
vector, each has a slice; a request is done when its last slice is. They serve all requests in one order, that of
arrival at the first of them, so that every fetch finds one version everywhere. Independent servers each keep their own
order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from asgd_lab import streams
from asgd_lab.backends.sim.clock import Alarm, Callbacks, Clock
from asgd_lab.backends.sim.sharing import Class, Sharing
from asgd_lab.hardware.costs import Costs
from asgd_lab.scenario.hardware import Server as ServerConfig

if TYPE_CHECKING:
    from asgd_lab.backends.sim.exchange import Exchange, Slice

BLOCK = 1024


class Services:
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


class Gauge:
    """What is counted of a server: the integrals of being busy and of the number of requests there."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.free_at = 0  # when all that has arrived will have been served
        self.busy_sum = 0  # service of all that has arrived
        self.present = 0
        self.present_sum = 0

    def come(self, now: int) -> None:
        """A request is there."""
        self.present += 1
        self.present_sum -= now

    def go(self, now: int) -> None:
        """It has been served, or is gone."""
        self.present -= 1
        self.present_sum += now

    def submit(self, request: Exchange | Slice, fetch: bool) -> None:
        """Serve a request: its `serve` is called when that is done, with `started` set."""
        raise NotImplementedError

    @property
    def busy_ns(self) -> int:
        """Until now."""
        return self.busy_sum - max(0, self.free_at - self.clock._now)

    @property
    def present_ns(self) -> int:
        """The integral of the number of requests until now, those in service included."""
        return self.present_sum + self.present * self.clock._now


class Fcfs(Gauge):
    """One server with a core of its own."""

    def __init__(self, clock: Clock, services: Services) -> None:
        super().__init__(clock)
        self._services, self._steady = services, services.constant

    def submit(self, request: Exchange | Slice, fetch: bool) -> None:
        """Serve a request: its `serve` is called when that is done, with `started` set."""
        now = self.clock._now
        service_ns = self._steady[fetch] if self._steady is not None else self._services.next_ns(fetch)
        started = self.free_at
        if started <= now:
            started = now
            if not service_ns and not self.present:  # the last one may have its end now, and not have been told
                request.started = now
                request.serve()
                return
        request.started = started
        self.free_at = end = started + service_ns
        self.busy_sum += service_ns
        self.present += 1
        self.present_sum -= now
        request.set(self.clock, end - now, _SERVED)


def _served(request: Exchange | Slice) -> None:
    queue = request.queue
    queue.present -= 1
    queue.present_sum += queue.clock._now
    request.serve()


_SERVED: Callbacks = (_served,)


class OnCores(Gauge):
    """One server on a core of a node that workers share."""

    def __init__(self, clock: Clock, services: Services, cores: Sharing, one: Class) -> None:
        super().__init__(clock)
        self._services, self._cores, self._one = services, cores, one
        self._waiting: deque[tuple[Exchange | Slice, bool]] = deque()
        self._serving = False
        self._since = 0  # when the service that is under way has begun

    @property
    def busy_ns(self) -> int:
        """Until now."""
        return self.busy_sum + (self.clock._now - self._since if self._serving else 0)

    def submit(self, request: Exchange | Slice, fetch: bool) -> None:
        """Serve a request, on its turn."""
        self.come(self.clock._now)
        self._waiting.append((request, fetch))
        if not self._serving:
            self._serve_next()

    def _serve_next(self) -> None:
        while self._waiting and not self._serving:
            request, fetch = self._waiting.popleft()
            request.started = self.clock._now
            service_ns = self._services.next_ns(fetch)
            if not service_ns:
                self._end(request)
                continue
            self._serving, self._since = True, request.started
            self._cores.take(self._one, service_ns, lambda request=request: self._served(request))  # type: ignore[misc]

    def _served(self, request: Exchange | Slice) -> None:
        self._serving = False
        self._end(request)
        self._serve_next()

    def _end(self, request: Exchange | Slice) -> None:
        now = self.clock._now
        self.go(now)
        self.busy_sum += now - request.started
        request.serve()


class Ordered:
    """Several servers that serve in one order, which the first one decides."""

    def __init__(self, clock: Clock, services: list[Services]) -> None:
        self.queues = [_InOrder(clock, one) for one in services]

    def submit(self, request: Exchange, server: int, fetch: bool) -> None:
        """A slice has arrived at its server; a fetch arrives at the first one alone."""
        if server == 0:
            request.left = len(self.queues)
            for index, queue in enumerate(self.queues):
                queue.enqueue(request, fetch, fetch or index == 0 or index in request.early)
            request.early.clear()
        elif request.left:
            self.queues[server].arrive(request)
        else:
            request.early.add(server)

    def give_up(self, request: Exchange, servers: list[int]) -> None:
        """Its slices will never arrive at these servers, which go on with the next."""
        for server in servers:
            request.left -= self.queues[server].skip(request)
        if not request.left:
            request.serve()


class _InOrder(Gauge, Alarm):
    def __init__(self, clock: Clock, services: Services) -> None:
        super().__init__(clock)
        self._services = services
        self._waiting: deque[list[object]] = deque()  # [request, whether it is a fetch, whether its slice is there]
        self._serving: Exchange | None = None

    def enqueue(self, request: Exchange, fetch: bool, there: bool) -> None:
        """The next in order."""
        self._waiting.append([request, fetch, there])
        if there:
            self.come(self.clock._now)
        self._serve_next()

    def arrive(self, request: Exchange) -> None:
        """The slice of one in the queue is there."""
        for entry in self._waiting:
            if entry[0] is request and not entry[2]:
                entry[2] = True
                break
        self.come(self.clock._now)
        self._serve_next()

    def skip(self, request: Exchange) -> bool:
        """Do not wait for a slice that is not there; whether there was one to wait for."""
        for entry in self._waiting:
            if entry[0] is request and not entry[2]:
                self._waiting.remove(entry)
                self._serve_next()
                return True
        return False

    def _serve_next(self) -> None:
        if self._serving is not None or not self._waiting or not self._waiting[0][2]:
            return
        request, fetch, _ = self._waiting.popleft()
        self._serving = request  # type: ignore[assignment]
        service_ns = self._services.next_ns(bool(fetch))
        now = self.clock._now
        self.busy_sum += service_ns
        self.free_at = now + service_ns
        self._serving.started = min(self._serving.started, now)  # type: ignore[union-attr]
        self.set(self.clock, service_ns, _IN_ORDER)

    def ring(self) -> None:
        """The slice has been served."""
        request, self._serving = self._serving, None
        assert request is not None
        self.go(self.clock._now)
        request.left -= 1
        self._serve_next()
        if not request.left:
            request.started = max(request.started, request.arrived)  # the last slice counts
            request.serve()


_IN_ORDER: Callbacks = (_InOrder.ring,)
