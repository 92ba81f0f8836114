"""A fetch: the request, the server's queue and gate, and the transfer of the vector to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asgd_lab.backends.sim.accounts import CLIENT, GATE, LINK, QUEUE, STAGING, Account
from asgd_lab.backends.sim.clock import FAR
from asgd_lab.backends.sim.exchange import Exchange, Owner, Stages, slice_lands
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.network import DOWN
from asgd_lab.backends.sim.push import Push
from asgd_lab.protocol.messages import ALL, NOWHERE, FetchRequest, Grant


class Fetch(Exchange):
    """The fetch of a worker's life, reused for one fetch after the other."""

    __slots__ = ("answer", "on_device", "request", "to_device_ns")
    request: FetchRequest
    answer: Grant

    def __init__(
        self, worker: Owner, machine: Machine, served: Callable[[Fetch], object], part: int = ALL, size_bytes: int = 0
    ) -> None:
        """`served` is called when the server may answer; `size_bytes`: of a `part` that is not ALL."""
        portion = machine.portion(DOWN, worker.number, part, size_bytes)
        costs = portion.costs
        super().__init__(worker, machine, portion, costs.client_fetch_ns, costs.server_fetch_ns)
        self.serve = served
        self.to_device_ns = costs.to_device_ns
        self.on_device = False  # does it wait there for other parts?

    def begin(self, request: FetchRequest, local: int) -> None:
        """Begin at the worker's own time `local`, now or later."""
        self.in_flight, self.begun = True, local
        self.arrived = self.served = self.released = self.landed = self.done = FAR
        self.request = request
        if self.slices:
            self._reset_slices()
        at = local + self.route.latency_ns
        if at > self.clock.now:
            self.set(self.clock, at, _arrive)
        else:
            self.arrive()

    def arrive(self) -> None:
        """Enter the server's queue, or pass it if the fetch is one-sided."""
        self.arrived = self.clock.now
        if self.machine.one_sided:
            self.started = self.arrived
            self.serve(self)
        elif self.slices:
            self.machine.ordered.submit(self, 0, True)
        else:
            self.queue.submit(self)

    def release(self, grant: Grant) -> None:
        """Send the server's answer."""
        clock, route = self.clock, self.route
        self.answer, self.released = grant, clock.now
        if grant.slot == NOWHERE:
            self.left = 0
            self.landed = self.done = clock.now + route.latency_ns
            self.worker.finished(self)
            if len(self.parts) > 1:
                self._unpack_others()
            return
        if self.slices:
            self.left = len(self.slices)
            for slice in self.slices:
                slice.transfer(slice_lands)
            return
        if route.sharing is not None:
            self.entry = route.sharing.take(route.one, route.bytes, self._transferred)
            return
        landed = clock.now + route.alone_ns + route.latency_ns
        if route.alone_ns:
            self.machine.network.private[DOWN].add(clock.now, clock.now + route.alone_ns)
            if self.host is not None:
                self.set(clock, landed, _land)
                return
        self._land_at(landed)

    def _transferred(self) -> None:
        self.entry = None
        landed = self.clock.now + self.route.latency_ns
        if self.host is not None:
            self._land_at(landed)
            return
        self.landed = landed  # inlined: `_land_at`
        self.done = landed + self.to_device_ns + self.client_ns
        self.worker.finished(self)

    def land(self) -> None:
        """The vector has arrived at the worker's host."""
        self._land_at(self.clock.now)

    def slice_lands(self) -> None:
        """One of several slices has arrived at the worker's host."""
        self.left -= 1
        if not self.left:
            self.land()

    def _land_at(self, landed: int) -> None:
        """Compute the end of the fetch: no shared resource is left, except perhaps the host."""
        self.landed = landed
        if self.host is not None and self.client_ns:
            self.set(self.clock, landed + self.to_device_ns, _unpack)
            return
        self.done = landed + self.to_device_ns + self.client_ns
        self.worker.finished(self)

    def unpack(self) -> None:
        """Run the worker's software on a host with shared cores, once all parts are on the device."""
        assert self.host is not None
        self.on_device = True
        if all(each.on_device or each.done != FAR for each in self.parts):
            self.job = self.host.sharing.take(self.host.one, self.client_ns, self._unpacked)

    def _unpacked(self) -> None:
        self.job = None
        unpacked = [each for each in self.parts if each.on_device]
        for each in unpacked:
            each.on_device, each.done = False, self.clock.now
        for each in unpacked:
            each.worker.finished(each)

    def _unpack_others(self) -> None:
        """It is done and brought nothing: other parts may have waited for it."""
        for each in self.parts:
            if each.on_device:
                each.unpack()
                return

    def cut(self, now: int) -> None:
        """The worker has crashed: end the transfer on an unshared link."""
        self.machine.network.private[DOWN].cut(self.released, self.released + self.route.alone_ns, now)

    def charge(self, account: Account) -> None:
        """Charge all stages, in one step if the worker waited from the beginning."""
        if account.until != self.begun or self.host is not None:
            account.charge_stages(self.stages(), self.done)
            return
        spent, arrived, served, released, landed = (
            account.spent_ns, self.arrived, self.served, self.released, self.landed
        )  # fmt: skip
        account.until = done = self.done
        spent[LINK] += arrived - self.begun + landed - released
        if served > arrived:
            spent[QUEUE] += served - arrived
        if released > served:
            spent[GATE] += released - served
        if done > landed:
            spent[STAGING] += done - landed - self.client_ns
            spent[CLIENT] += self.client_ns

    def stages(self) -> Stages:
        """See the head of `exchange`."""
        on_device = self.landed + self.to_device_ns if self.landed != FAR else FAR
        return (
            (LINK, self.arrived), (QUEUE, self.served), (GATE, self.released), (LINK, self.landed),
            (STAGING, min(on_device, self.done)), (CLIENT, self.done),
        )  # fmt: skip


class PartFetch(Fetch):
    """The fetch of a single part. If one server has all parts, it is first-in first-out for each part of a worker: the
    fetch is served after earlier pushes of that part, though an update takes longer on the link than a request.
    """

    __slots__ = ("_earlier", "pushes")
    pushes: Sequence[Push]
    """Those pushes, from all buffers; none if each part has a server."""

    def begin(self, request: FetchRequest, local: int) -> None:
        """Begin at the worker's own time `local`, now or later."""
        self._earlier = [push for push in self.pushes if push.in_flight and push.served == FAR]
        if not self._earlier:
            super().begin(request, local)
            return
        self.in_flight, self.begun, self.request = True, local, request
        self.arrived = self.served = self.released = self.landed = self.done = FAR
        for push in self._earlier:
            push.behind.append(self)

    def follow(self, push: Push) -> None:
        """One of the earlier pushes has been served."""
        self._earlier.remove(push)
        if not self._earlier:
            self.set(self.clock, max(self.clock.now, self.begun + self.route.latency_ns), _arrive)


_arrive, _land, _unpack = Fetch.arrive, Fetch.land, Fetch.unpack
