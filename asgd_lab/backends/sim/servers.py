"""The servers' queues: one request is served at a time, first come first served.

One server is arithmetic: a request that arrives knows when it will have been served. Of several servers that share a
vector, each has a slice; a request is done when its last slice is. They serve all requests in one order, that of
arrival at the first of them, so that every fetch finds one version everywhere. Independent servers each keep their own
order.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from asgd_lab import streams
from asgd_lab.backends.sim.clock import Alarm, Callbacks, Clock, Timer
from asgd_lab.backends.sim.exchange import FAR, Exchange, Slice
from asgd_lab.backends.sim.sharing import Class, Sharing
from asgd_lab.hardware.costs import Costs
from asgd_lab.scenario.hardware import Server as ServerConfig

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
        self.down_until = 0

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

    def go_down(self, until: int) -> None:
        """Serve nobody before then; a service that is under way begins anew."""
        raise NotImplementedError

    @property
    def busy_ns(self) -> int:
        """Until now."""
        return self.busy_sum - max(0, self.free_at - max(self.clock._now, self.down_until))

    @property
    def present_ns(self) -> int:
        """The integral of the number of requests until now, those in service included."""
        return self.present_sum + self.present * self.clock._now


class Fcfs(Gauge):
    """One server with a core of its own."""

    def __init__(self, clock: Clock, services: Services) -> None:
        super().__init__(clock)
        self._services, self._steady = services, services.constant
        self._moved: dict[int, int] = {}  # when what was delayed will have been served

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

    def go_down(self, until: int) -> None:
        """All that is there is served later, in the same order; those who ring before then wait on."""
        clock = self.clock
        alarms: list[tuple[int, int, int, Any]] = clock._queue  # type: ignore[assignment]
        there = sorted(
            (self._moved.get(id(alarm), time), number, alarm)
            for time, _, number, alarm in alarms
            if alarm.callbacks in (_SERVED, _LATER) and alarm.queue is self
        )
        self.down_until = max(self.down_until, until)
        begin = self.down_until
        for end, _, request in there:
            service_ns = end - request.started
            self.busy_sum += max(0, clock._now - request.started)  # done in vain
            request.started, begin = begin, begin + service_ns
            self._moved[id(request)] = begin
            request.callbacks = _LATER
        self.free_at = max(self.free_at, begin)

    def later(self, request: Exchange | Slice) -> None:
        """It would have been served by now, had the server not been down."""
        request.set(self.clock, self._moved.pop(id(request)) - self.clock._now, _SERVED)


def _served(request: Exchange | Slice) -> None:
    queue = request.queue
    queue.present -= 1
    queue.present_sum += queue.clock._now
    request.serve()


def _later(request: Exchange | Slice) -> None:
    request.queue.later(request)  # type: ignore[attr-defined]


_SERVED: Callbacks = (_served,)
_LATER: Callbacks = (_later,)


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
                if fetch or index == 0:
                    queue.arrive(request.slices[index])
                queue.enqueue(request.slices[index], fetch)
            request.early.clear()
            return
        self.queues[server].arrive(request.slices[server])
        if request.left:
            self.queues[server].serve_next()
        else:
            request.early.add(server)

    def give_up(self, request: Exchange, servers: list[int]) -> None:
        """Its slices will never arrive at these servers, which go on with the next."""
        if not request.left:  # nor has it a place in the order: those that came early are forgotten
            for server in request.early:
                self.queues[server].go(self.queues[server].clock.now)
            request.early.clear()
            return
        for server in servers:
            request.left -= self.queues[server].skip(request.slices[server])
        if not request.left:
            request.serve()


class _InOrder(Gauge, Alarm):
    def __init__(self, clock: Clock, services: Services) -> None:
        super().__init__(clock)
        self._services = services
        self._waiting: deque[tuple[Slice, bool]] = deque()  # and whether it is a fetch
        self._serving: Slice | None = None

    def arrive(self, slice: Slice) -> None:
        """A slice is there, whether its place in the order is known or not."""
        slice.arrived = self.clock._now
        self.come(slice.arrived)

    def enqueue(self, slice: Slice, fetch: bool) -> None:
        """The next in order, there or not."""
        self._waiting.append((slice, fetch))
        self.serve_next()

    def skip(self, slice: Slice) -> bool:
        """Do not wait for a slice that is not there; whether there was one to wait for."""
        if slice.arrived != FAR or (slice, False) not in self._waiting:
            return False
        self._waiting.remove((slice, False))
        self.serve_next()
        return True

    def serve_next(self) -> None:
        """The one whose turn it is, if it is there and nobody is being served."""
        if self._serving is not None or not self._waiting or self._waiting[0][0].arrived == FAR:
            return
        if self.clock._now < self.down_until:
            return
        slice, fetch = self._waiting.popleft()
        self._serving = slice
        service_ns = self._services.next_ns(fetch)
        slice.started = now = self.clock._now
        self.busy_sum += service_ns
        self.free_at = now + service_ns
        slice.of.started = min(slice.of.started, now)
        self.set(self.clock, service_ns, _IN_ORDER)

    def go_down(self, until: int) -> None:
        """The slice that is being served begins anew then."""
        clock, serving = self.clock, self._serving
        self.down_until = max(self.down_until, until)
        if serving is None:
            Timer(clock, until - clock._now, self.serve_next)
            return
        service_ns = self.free_at - serving.started
        self.busy_sum += max(0, clock._now - serving.started)  # done in vain
        serving.started = self.down_until
        self.free_at = self.down_until + service_ns
        self.callbacks = _LATER_IN_ORDER

    def later(self) -> None:
        """The slice would have been served by now, had the server not been down."""
        self.set(self.clock, self.free_at - self.clock._now, _IN_ORDER)

    def ring(self) -> None:
        """The slice has been served."""
        slice, self._serving = self._serving, None
        assert slice is not None
        slice.served = self.clock._now
        self.go(slice.served)
        request = slice.of
        request.left -= 1
        self.serve_next()
        if not request.left:
            request.started = max(request.started, request.arrived)  # the last slice counts
            request.serve()


_IN_ORDER: Callbacks = (_InOrder.ring,)
_LATER_IN_ORDER: Callbacks = (_InOrder.later,)
