"""A fetch on its way: the request, the server's queue and its gate, and the vector over the link to the device."""

from __future__ import annotations

from asgd_lab.backends.sim.accounts import CLIENT, GATE, LINK, QUEUE, STAGING, Account
from asgd_lab.backends.sim.clock import Callbacks
from asgd_lab.backends.sim.exchange import FAR, SLICE_LAND, Exchange, Stages
from asgd_lab.backends.sim.network import DOWN
from asgd_lab.protocol.grants import FetchGrant


class Fetch(Exchange):
    """A fetch; `ahead` if its worker goes on meanwhile."""

    __slots__ = ("ahead", "grant", "versions")
    grant: FetchGrant
    versions: list[int]

    def begin(self, local: int, ahead: bool) -> None:
        """From the worker's own time `local`, now or later."""
        self._reset(local)
        self.ahead = ahead
        sim = self.sim
        if self.slices and sim.independent:
            self.left = len(self.slices)
            self.versions = [0] * self.left
            for slice in self.slices:
                slice.ask(local)
            return
        delay = local + self.way.latency_ns - self.clock._now
        if delay:
            self.set(self.clock, delay, _ARRIVE)
        else:
            self.arrive()

    def arrive(self) -> None:
        """At the server's queue; past it, if the fetch is one-sided."""
        sim = self.sim
        self.arrived = self.clock._now
        if sim.one_sided:
            self.started = self.arrived
            self.serve()
        elif self.slices:
            sim.submit(self, 0, True)
        else:
            self.queue.submit(self, True)

    def release_slice(self, server: int, grant: FetchGrant) -> None:
        """An independent server's answer leaves it now; the first one's says how many minibatches."""
        self.versions[server] = grant.version
        self.released = self.served = self.clock._now
        if server == 0:
            self.grant = grant
        self.slices[server].fly(SLICE_LAND)

    def slice_arrives(self, server: int) -> None:
        """At one of several independent servers; past its queue, if the fetch is one-sided."""
        sim = self.sim
        self.arrived = self.clock._now
        if sim.one_sided:
            self.slices[server].started = self.arrived
            self.slices[server].serve()
        else:
            sim.submit(self, server, True)

    def serve(self) -> None:
        """The server may answer now."""
        self.served = self.clock._now
        self.sim.fetch_served(self)

    def release(self, grant: FetchGrant) -> None:
        """The server's answer leaves it now."""
        sim, clock = self.sim, self.clock
        self.grant, self.released = grant, clock._now
        if not grant.steps:
            self.left = 0
            self.landed = self.done = clock._now + self.way.latency_ns
            self.worker.finished(self)
            return
        sim.granted(self.worker)
        if self.slices:
            self.left = len(self.slices)
            for slice in self.slices:
                slice.fly(SLICE_LAND)
            return
        way = self.way
        if way.sharing is not None:
            self.entry = way.sharing.take(way.one, way.bytes, self._flown)
            return
        if way.alone_ns:
            sim.network.flown[DOWN].add(clock._now, clock._now + way.alone_ns)
            if self.worker.host is not None:
                self.set(clock, way.alone_ns + way.latency_ns, _LAND)
                return
        self._land_at(clock._now + way.alone_ns + way.latency_ns)

    def _flown(self) -> None:
        self.entry = None
        self._land_at(self.clock._now + self.way.latency_ns)

    def land(self) -> None:
        """The vector is on the worker's host."""
        self._land_at(self.clock._now)

    def slice_lands(self) -> None:
        """One of several."""
        self.left -= 1
        if not self.left:
            sim = self.sim
            if sim.independent:
                self.started = max(self.started, self.arrived)
                if self.grant.steps:
                    sim.granted(self.worker)
            self.land()

    def _land_at(self, landed: int) -> None:
        """What follows is the worker's own affair: its time is known now, except on a host that is shared."""
        worker = self.worker
        costs = self.sim.costs
        self.landed = landed
        if worker.host is not None and costs.client_fetch_ns:
            self.set(self.clock, landed + costs.to_device_ns - self.clock._now, _UNPACK)
            return
        self.done = landed + costs.to_device_ns + costs.client_fetch_ns
        worker.finished(self)

    def unpack(self) -> None:
        """Software on the worker's host, whose cores are shared."""
        worker = self.worker
        assert worker.host is not None
        self.job = worker.host.sharing.take(worker.host.one, self.sim.costs.client_fetch_ns, self._unpacked)

    def _unpacked(self) -> None:
        self.job = None
        self.done = self.clock._now
        self.worker.finished(self)

    def charge(self, account: Account) -> None:
        """The same as by its stages, in one go where it was waited for from its beginning."""
        if account.until != self.begun or self.worker.host is not None or not self.grant.steps:
            account.charge_stages(self.stages(), self.done)
            return
        spent, served, released, landed = account.spent_ns, self.served, self.released, self.landed
        spent[LINK] += self.arrived - self.begun + landed - released
        spent[QUEUE] += served - self.arrived
        spent[GATE] += released - served
        spent[STAGING] += self.done - landed - self.client_ns
        spent[CLIENT] += self.client_ns
        account.until = self.done

    def stages(self) -> Stages:
        """See above."""
        on_device = self.landed + self.sim.costs.to_device_ns if self.landed != FAR else FAR
        return (
            (LINK, self.arrived), (QUEUE, self.served), (GATE, self.released), (LINK, self.landed),
            (STAGING, min(on_device, self.done)), (CLIENT, self.done),
        )  # fmt: skip


_ARRIVE: Callbacks = (Fetch.arrive,)
_LAND: Callbacks = (Fetch.land,)
_UNPACK: Callbacks = (Fetch.unpack,)
