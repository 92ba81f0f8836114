"""Several servers that share a vector: each has a slice, and a request is done when its last slice is.

They serve all requests in one order, that of arrival at the first server, so every fetch gets the same version from all
of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from asgd_lab.backends.sim.clock import FAR, Alarm, Clock, Timer
from asgd_lab.backends.sim.servers import Queue, Request, ServiceTimes


class Piece(Request):
    """One server's slice of a request."""

    __slots__ = ("of", "served")
    of: Divided
    served: int


class Divided(Request):
    """A request that may go to several servers, to each with a slice."""

    __slots__ = ("early", "left", "slices")
    slices: Sequence[Piece]
    left: int
    """Slices still to arrive or to be served."""
    early: set[int]
    """Servers whose slice arrived before the first server's."""


class Ordered:
    """Several servers that serve in one order, decided by the first one."""

    def __init__(self, clock: Clock, services: list[ServiceTimes]) -> None:
        self.queues = [InOrder(clock, one) for one in services]

    def submit(self, request: Divided, server: int, fetch: bool) -> None:
        """A slice has arrived at its server; a fetch arrives at the first one alone."""
        if server == 0:
            request.left = len(self.queues)
            for index, queue in enumerate(self.queues):
                if fetch or index == 0:
                    queue.arrive(request.slices[index])
                queue.enqueue(request.slices[index])
            request.early.clear()
            return
        self.queues[server].arrive(request.slices[server])
        if request.left:
            self.queues[server].serve_next()
        else:
            request.early.add(server)

    def give_up(self, request: Divided, servers: list[int]) -> None:
        """Skip a request's slices that will never arrive at these servers."""
        if not request.left:  # it has no place in the order: forget its early slices
            for server in request.early:
                self.queues[server].departure(self.queues[server].clock.now)
            request.early.clear()
            return
        for server in servers:
            request.left -= self.queues[server].skip(request.slices[server])
        if not request.left:
            request.serve(request)


class InOrder(Queue, Alarm):
    """One of these servers; as an alarm, it waits for the end of the current service."""

    def __init__(self, clock: Clock, services: ServiceTimes) -> None:
        super().__init__(clock)
        self._services = services
        self._waiting: deque[Piece] = deque()
        self._serving: Piece | None = None

    def arrive(self, slice: Piece) -> None:
        """A slice has arrived; its place in the order may be unknown yet."""
        slice.arrived = self.clock.now
        self.arrival(slice.arrived)

    def enqueue(self, slice: Piece) -> None:
        """Add the next slice in order; it may not have arrived."""
        self._waiting.append(slice)
        self.serve_next()

    def skip(self, slice: Piece) -> bool:
        """Do not wait for a slice that has not arrived; return whether there was one to wait for."""
        if slice.arrived != FAR or slice not in self._waiting:
            return False
        self._waiting.remove(slice)
        self.serve_next()
        return True

    def serve_next(self) -> None:
        """Serve the next slice in order, if it has arrived and the server is free."""
        if self._serving is not None or not self._waiting or self._waiting[0].arrived == FAR:
            return
        if self.clock.now < self.down_until:
            return
        slice = self._waiting.popleft()
        self._serving = slice
        service_ns = self._services.next_ns(slice.service_ns)
        slice.started = now = self.clock.now
        self.busy_sum += service_ns
        self.free_at = now + service_ns
        slice.of.started = min(slice.of.started, now)
        self.set(self.clock, self.free_at, InOrder.ring)

    def go_down(self, until: int) -> None:
        """Stop until then, and repeat the interrupted service."""
        clock, serving = self.clock, self._serving
        self.down_until = max(self.down_until, until)
        if serving is None:
            Timer(clock, until - clock.now, self.serve_next)
            return
        service_ns = self.free_at - serving.started
        self.busy_sum += max(0, clock.now - serving.started)  # done in vain
        serving.started = self.down_until
        self.free_at = self.down_until + service_ns
        self.then = InOrder.later

    def later(self) -> None:
        """The service would have ended now if the server had not been down."""
        self.set(self.clock, self.free_at, InOrder.ring)

    def ring(self) -> None:
        """The slice has been served."""
        slice, self._serving = self._serving, None
        assert slice is not None
        slice.served = self.clock.now
        self.departure(slice.served)
        request = slice.of
        request.left -= 1
        self.serve_next()
        if not request.left:
            request.started = max(request.started, request.arrived)  # the last slice counts
            request.serve(request)
