"""One push or fetch on its way between a worker and the servers, and when it passed each stage.

    push:   begun -client, to_host-> sent -flow, latency-> arrived -wait, service-> served -gate-> released -latency-> done
    fetch:  begun -latency-> arrived -wait, service-> served -gate-> released -flow, latency-> landed -to_device, client-> done

An exchange is its own alarm: it waits for one thing after the other. A wait of no time is a call. A vector in slices
passes sent to arrived, and released to landed, once a server, and the last slice counts.
"""  # noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from asgd_lab.backends.sim.accounts import CLIENT, GATE, LINK, QUEUE, STAGING, Account
from asgd_lab.backends.sim.clock import Alarm, Callbacks
from asgd_lab.protocol.replica import Arrived
from asgd_lab.protocol.server import FetchGrant, PushGrant

if TYPE_CHECKING:
    from asgd_lab.backends.sim.network import Way
    from asgd_lab.backends.sim.worker import SimWorker

FAR = 2**62  # a stage that is not reached yet


class Exchange(Alarm):
    """What pushes and fetches have in common."""

    __slots__ = (
        "arrived",
        "begun",
        "client_ns",
        "done",
        "early",
        "flying",
        "landed",
        "left",
        "lost",
        "queue",
        "released",
        "sent",
        "served",
        "slices",
        "started",
        "way",
        "worker",
    )

    def __init__(self, worker: SimWorker, ways: list[Way], client_ns: int) -> None:
        self.worker, self.way = worker, ways[0]
        self.client_ns = client_ns  # the worker's own software
        self.queue = worker.sim.queues[0]
        self.slices = [Slice(self, index, way) for index, way in enumerate(ways)] if len(ways) > 1 else []
        self.left = 0  # slices that are still to come
        self.early: set[int] = set()  # servers whose slice came before the first server's
        self.lost = False  # did its worker crash?
        self.flying = False  # is it between begin and done?
        self.begun = self.sent = self.arrived = self.started = self.served = self.released = self.landed = 0
        self.done = 0

    def _reset(self, begun: int) -> None:
        self.begun = begun
        self.sent = self.arrived = self.started = self.served = self.released = self.landed = self.done = FAR
        self.flying = True

    def serve(self) -> None:
        """The servers have served it."""
        raise NotImplementedError

    def stages(self) -> tuple[tuple[int, int], ...]:
        """What was waited for, and until when, in order."""
        raise NotImplementedError

    def charge(self, account: Account) -> None:
        """The whole of it, to the worker that has waited for it."""
        account.charge_stages(self.stages(), self.done)

    def lose(self) -> None:
        """Its worker is gone: what is on its way is lost, what a server has in its queue is served for nothing."""
        self.lost = True
        if self.served == FAR and self.arrived != FAR:
            return
        self.cancel()
        self.way.cut()
        for slice in self.slices:
            slice.cancel()
            slice.way.cut()


class Push(Exchange):
    """A push, from one buffer of its worker."""

    __slots__ = ("arriving", "buffer", "grant")
    arriving: Arrived
    grant: PushGrant

    def __init__(self, worker: SimWorker, ways: list[Way], buffer: int) -> None:
        super().__init__(worker, ways, worker.sim.costs.client_push_ns)
        self.buffer = buffer

    def begin(self, local: int) -> None:
        """From the worker's own time `local`, now or later."""
        worker = self.worker
        sim, costs = worker.sim, worker.sim.costs
        self._reset(local)
        self.arriving = worker.replica.arriving()
        now = sim.clock._now
        if worker.host is not None and costs.client_push_ns:
            if local > now:
                self.set(sim.clock, local - now, _PREPARE)
            else:
                self.prepare()
            return
        delay = local + costs.client_push_ns + costs.to_host_ns - now
        if delay:
            self.set(sim.clock, delay, _SEND)
        else:
            self.send()

    def prepare(self) -> None:
        """Software on the worker's host, whose cores are shared."""
        worker = self.worker
        assert worker.host is not None
        worker.host.sharing.take(worker.host.one, worker.sim.costs.client_push_ns, self._prepared)

    def _prepared(self) -> None:
        if not self.lost:
            self.set(self.worker.sim.clock, self.worker.sim.costs.to_host_ns, _SEND)

    def send(self) -> None:
        """The vector leaves the host."""
        sim = self.worker.sim
        clock = sim.clock
        self.sent = clock._now
        if self.slices:
            self.left = len(self.slices) if sim.independent else 0
            for slice in self.slices:
                slice.fly(_SLICE_ARRIVE)
            return
        way = self.way
        if way.sharing is not None:
            way.carry(self._flown)
            return
        delay = way.alone_ns + way.latency_ns
        if delay:
            self.set(clock, delay, _ARRIVE)
        else:
            self.arrive()

    def _flown(self) -> None:
        self.way.entry = None
        latency_ns = self.way.latency_ns
        if latency_ns:
            self.set(self.worker.sim.clock, latency_ns, _ARRIVE)
        else:
            self.arrive()

    def arrive(self) -> None:
        """At the server's queue."""
        self.arrived = self.worker.sim.clock._now
        self.queue.submit(self, False)

    def slice_arrives(self, server: int) -> None:
        """At one of several servers."""
        sim = self.worker.sim
        self.arrived = sim.clock._now if self.arrived == FAR else max(self.arrived, sim.clock._now)
        sim.submit(self, server, False)

    def serve(self) -> None:
        """Applied, if nobody collects."""
        sim = self.worker.sim
        self.served = sim.clock._now
        sim.push_served(self)

    def release(self, grant: PushGrant) -> None:
        """The server says that the update's buffer is free; the worker hears it a latency later."""
        sim = self.worker.sim
        now = sim.clock._now
        self.grant, self.released = grant, now
        self.done = now + self.way.latency_ns
        self.worker.finished(self)

    def charge(self, account: Account) -> None:
        """The same as by its stages, in one go where it was waited for from its beginning."""
        if account.until != self.begun or self.worker.host is not None:
            account.charge_stages(self.stages(), self.done)
            return
        spent, served, released, prepared_ns = account.spent_ns, self.served, self.released, self.client_ns
        spent[CLIENT] += prepared_ns
        spent[STAGING] += self.sent - self.begun - prepared_ns
        spent[LINK] += self.arrived - self.sent + self.done - released
        spent[QUEUE] += served - self.arrived
        spent[GATE] += released - served
        account.until = self.done

    def stages(self) -> tuple[tuple[int, int], ...]:
        """See above."""
        costs = self.worker.sim.costs
        if self.worker.host is None:
            prepared = self.begun + costs.client_push_ns
        else:
            prepared = max(self.begun, self.sent - costs.to_host_ns)
        return (
            (CLIENT, prepared), (STAGING, self.sent), (LINK, self.arrived), (QUEUE, self.served),
            (GATE, self.released), (LINK, self.done),
        )  # fmt: skip


class Fetch(Exchange):
    """A fetch; `ahead` if its worker goes on meanwhile."""

    __slots__ = ("ahead", "grant", "versions")
    grant: FetchGrant
    versions: list[int]

    def begin(self, local: int, ahead: bool) -> None:
        """From the worker's own time `local`, now or later."""
        self._reset(local)
        self.ahead = ahead
        sim = self.worker.sim
        if self.slices and sim.independent:
            self.left = len(self.slices)
            self.versions = [0] * self.left
            for slice in self.slices:
                slice.ask(local)
            return
        delay = local + self.way.latency_ns - sim.clock._now
        if delay:
            self.set(sim.clock, delay, _ARRIVE)
        else:
            self.arrive()

    def arrive(self) -> None:
        """At the server's queue; past it, if the fetch is one-sided."""
        sim = self.worker.sim
        self.arrived = sim.clock._now
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
        self.released = self.served = self.worker.sim.clock._now
        if server == 0:
            self.grant = grant
        self.slices[server].fly(_SLICE_LAND)

    def slice_arrives(self, server: int) -> None:
        """At one of several independent servers."""
        sim = self.worker.sim
        self.arrived = sim.clock._now
        sim.submit(self, server, True)

    def serve(self) -> None:
        """The server may answer now."""
        self.served = self.worker.sim.clock._now
        self.worker.sim.fetch_served(self)

    def release(self, grant: FetchGrant) -> None:
        """The server's answer leaves it now."""
        sim = self.worker.sim
        clock = sim.clock
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
                slice.fly(_SLICE_LAND)
            return
        way = self.way
        if way.sharing is not None:
            way.carry(self._flown)
        elif way.alone_ns and self.worker.host is not None:
            self.set(clock, way.alone_ns + way.latency_ns, _LAND)
        else:
            self._land_at(clock._now + way.alone_ns + way.latency_ns)

    def _flown(self) -> None:
        self.way.entry = None
        self._land_at(self.worker.sim.clock._now + self.way.latency_ns)

    def land(self) -> None:
        """The vector is on the worker's host."""
        self._land_at(self.worker.sim.clock._now)

    def slice_lands(self) -> None:
        """One of several."""
        self.left -= 1
        if not self.left:
            sim = self.worker.sim
            if sim.independent and self.grant.steps:
                sim.granted(self.worker)
            self.land()

    def _land_at(self, landed: int) -> None:
        """What follows is the worker's own affair: its time is known now, except on a host that is shared."""
        worker = self.worker
        sim, costs = worker.sim, worker.sim.costs
        self.landed = landed
        if worker.host is not None and costs.client_fetch_ns:
            self.set(sim.clock, landed + costs.to_device_ns - sim.clock._now, _UNPACK)
            return
        self.done = landed + costs.to_device_ns + costs.client_fetch_ns
        worker.finished(self)

    def unpack(self) -> None:
        """Software on the worker's host, whose cores are shared."""
        worker = self.worker
        assert worker.host is not None
        worker.host.sharing.take(worker.host.one, worker.sim.costs.client_fetch_ns, self._unpacked)

    def _unpacked(self) -> None:
        if not self.lost:
            self.done = self.worker.sim.clock._now
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

    def stages(self) -> tuple[tuple[int, int], ...]:
        """See above."""
        on_device = self.landed + self.worker.sim.costs.to_device_ns if self.landed != FAR else FAR
        return (
            (LINK, self.arrived), (QUEUE, self.served), (GATE, self.released), (LINK, self.landed),
            (STAGING, min(on_device, self.done)), (CLIENT, self.done),
        )  # fmt: skip


class Slice(Alarm):
    """The part of an exchange that is one server's."""

    __slots__ = ("arrived", "index", "of", "queue", "started", "way")

    def __init__(self, of: Exchange, index: int, way: Way) -> None:
        self.of, self.index, self.way = of, index, way
        self.queue = of.worker.sim.queues[index]
        self.arrived = self.started = 0

    def ask(self, local: int) -> None:
        """A fetch's request to an independent server."""
        clock = self.of.worker.sim.clock
        self.set(clock, local + self.way.latency_ns - clock._now, _SLICE_ARRIVE)

    def fly(self, then: Callbacks) -> None:
        """Over the way to or from its server, then call what `then` holds."""
        if self.way.sharing is not None:
            self.way.carry(lambda: self._flown(then))
        else:
            self.set(self.of.worker.sim.clock, self.way.alone_ns + self.way.latency_ns, then)

    def _flown(self, then: Callbacks) -> None:
        self.way.entry = None
        self.set(self.of.worker.sim.clock, self.way.latency_ns, then)

    def serve(self) -> None:
        """An independent server has served it."""
        self.of.started = min(self.of.started, self.started)
        self.of.worker.sim.slice_served(self)


def _slice_arrives(slice: Slice) -> None:
    slice.arrived = slice.of.worker.sim.clock.now
    slice.of.slice_arrives(slice.index)  # type: ignore[attr-defined]


def _slice_lands(slice: Slice) -> None:
    slice.of.slice_lands()  # type: ignore[attr-defined]


_PREPARE: Callbacks = (Push.prepare,)
_SEND: Callbacks = (Push.send,)
_ARRIVE: Callbacks = (lambda exchange: exchange.arrive(),)
_LAND: Callbacks = (Fetch.land,)
_UNPACK: Callbacks = (Fetch.unpack,)
_SLICE_ARRIVE: Callbacks = (_slice_arrives,)
_SLICE_LAND: Callbacks = (_slice_lands,)
