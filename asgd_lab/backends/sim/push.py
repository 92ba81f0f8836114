"""A push on its way: from a worker's buffer, over its host and the link, through the server's queue, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgd_lab.backends.sim.accounts import CLIENT, GATE, LINK, QUEUE, STAGING, Account
from asgd_lab.backends.sim.clock import Callbacks
from asgd_lab.backends.sim.exchange import FAR, SLICE_ARRIVE, Exchange, Stages
from asgd_lab.backends.sim.network import UP
from asgd_lab.protocol.grants import PushGrant
from asgd_lab.protocol.replica import Arrived

if TYPE_CHECKING:
    from asgd_lab.backends.sim.network import Way
    from asgd_lab.backends.sim.worker import SimWorker


class Push(Exchange):
    """A push, from one buffer of its worker."""

    __slots__ = ("arriving", "buffer", "distance", "grant")
    arriving: Arrived
    distance: float
    grant: PushGrant

    def __init__(self, worker: SimWorker, ways: list[Way], buffer: int) -> None:
        super().__init__(worker, ways, worker.sim.costs.client_push_ns)
        self.buffer = buffer

    def begin(self, local: int) -> None:
        """From the worker's own time `local`, now or later."""
        worker = self.worker
        costs = self.sim.costs
        self._reset(local)
        self.arriving = worker.replica.arriving()
        now = self.clock._now
        if worker.host is not None and costs.client_push_ns:
            if local > now:
                self.set(self.clock, local - now, _PREPARE)
            else:
                self.prepare()
            return
        delay = local + costs.client_push_ns + costs.to_host_ns - now
        if delay:
            self.set(self.clock, delay, _SEND)
        else:
            self.send()

    def prepare(self) -> None:
        """Software on the worker's host, whose cores are shared."""
        worker = self.worker
        assert worker.host is not None
        self.job = worker.host.sharing.take(worker.host.one, self.sim.costs.client_push_ns, self._prepared)

    def _prepared(self) -> None:
        self.job = None
        self.set(self.clock, self.sim.costs.to_host_ns, _SEND)

    def send(self) -> None:
        """The vector leaves the host."""
        sim, clock = self.sim, self.clock
        self.sent = clock._now
        if self.slices:
            self.left = len(self.slices) if sim.independent else 0
            for slice in self.slices:
                slice.fly(SLICE_ARRIVE)
            return
        way = self.way
        if way.sharing is not None:
            self.entry = way.sharing.take(way.one, way.bytes, self._flown)
            return
        delay = way.alone_ns + way.latency_ns
        if way.alone_ns:
            sim.network.flown[UP].add(clock._now, clock._now + way.alone_ns)
        if delay:
            self.set(clock, delay, _ARRIVE)
        else:
            self.arrive()

    def _flown(self) -> None:
        self.entry = None
        latency_ns = self.way.latency_ns
        if latency_ns:
            self.set(self.clock, latency_ns, _ARRIVE)
        else:
            self.arrive()

    def arrive(self) -> None:
        """At the server's queue."""
        self.arrived = self.clock._now
        self.queue.submit(self, False)

    def slice_arrives(self, server: int) -> None:
        """At one of several servers."""
        sim = self.sim
        self.arrived = self.clock._now if self.arrived == FAR else max(self.arrived, self.clock._now)
        sim.submit(self, server, False)

    def serve(self) -> None:
        """Applied, if nobody collects."""
        sim = self.sim
        self.served = self.clock._now
        sim.push_served(self)

    def release(self, grant: PushGrant) -> None:
        """The server says that the update's buffer is free; the worker hears it a latency later, the farthest last."""
        now = self.clock._now
        self.grant, self.released = grant, now
        if self.sim.independent:
            self.done = max(slice.served + slice.way.latency_ns for slice in self.slices)
        else:
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

    def stages(self) -> Stages:
        """See above."""
        costs = self.sim.costs
        if self.worker.host is None:
            prepared = self.begun + costs.client_push_ns
        else:
            prepared = max(self.begun, self.sent - costs.to_host_ns)
        return (
            (CLIENT, prepared), (STAGING, self.sent), (LINK, self.arrived), (QUEUE, self.served),
            (GATE, self.released), (LINK, self.done),
        )  # fmt: skip


_PREPARE: Callbacks = (Push.prepare,)
_SEND: Callbacks = (Push.send,)
_ARRIVE: Callbacks = (Push.arrive,)
