"""One push or fetch on its way between a worker and the servers, and when it passed each stage.

    push:   begun -client, to_host-> sent -flow, latency-> arrived -wait, service-> served -gate-> released -latency-> done
    fetch:  begun -latency-> arrived -wait, service-> served -gate-> released -flow, latency-> landed -to_device, client-> done

An exchange is its own alarm: it waits for one thing after the other. A wait of no time is a call. A vector in slices
passes sent to arrived, and released to landed, once a server, and the last slice counts.
"""  # noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgd_lab.backends.sim.accounts import Account
from asgd_lab.backends.sim.clock import Alarm, Callbacks

if TYPE_CHECKING:
    from asgd_lab.backends.sim.network import Way
    from asgd_lab.backends.sim.worker import SimWorker

FAR = 2**62  # a stage that is not reached yet
Stages = tuple[tuple[int, int], ...]


class Exchange(Alarm):
    """What pushes and fetches have in common."""

    __slots__ = (
        "arrived",
        "begun",
        "client_ns",
        "clock",
        "done",
        "early",
        "entry",
        "flying",
        "job",
        "landed",
        "left",
        "lost",
        "queue",
        "released",
        "sent",
        "served",
        "sim",
        "slices",
        "started",
        "torn",
        "way",
        "worker",
    )

    def __init__(self, worker: SimWorker, ways: list[Way], client_ns: int) -> None:
        self.worker, self.way = worker, ways[0]
        self.sim, self.clock = worker.sim, worker.sim.clock
        self.client_ns = client_ns  # the worker's own software
        self.queue = worker.sim.queues[0]
        self.slices = [Slice(self, index, way) for index, way in enumerate(ways)] if len(ways) > 1 else []
        self.entry: list[Any] | None = None  # its place on a way that is shared, while it is there
        self.job: list[Any] | None = None  # the same of its software, on a host that is shared
        self.left = 0  # slices that are still to come
        self.early: set[int] = set()  # servers whose slice came before the first server's
        self.lost = False  # did its worker crash?
        self.torn = False  # and has it reached only some of the servers?
        self.flying = False  # is it between begin and done?
        self.begun = self.sent = self.arrived = self.started = self.served = self.released = self.landed = 0
        self.done = 0

    def _reset(self, begun: int) -> None:
        self.begun = begun
        self.sent = self.arrived = self.started = self.served = self.released = self.landed = self.done = FAR
        for slice in self.slices:
            slice.arrived = slice.started = slice.served = FAR
        self.flying = True

    def serve(self) -> None:
        """The servers have served it."""
        raise NotImplementedError

    @property
    def collected(self) -> bool:
        """Whether the server has it and has not answered."""
        return self.flying and self.served != FAR and self.released == FAR

    def stages(self) -> Stages:
        """What was waited for, and until when, in order."""
        raise NotImplementedError

    def charge(self, account: Account) -> None:
        """The whole of it, to the worker that has waited for it."""
        account.charge_stages(self.stages(), self.done)

    def lose(self) -> None:
        """Its worker is gone: what is on its way is lost, what a server has in its queue is served for nothing."""
        self.lost = True
        if self.served != FAR or self.arrived == FAR:
            self.cancel()
            self.way.cut(self.entry)
            if self.job is not None and self.worker.host is not None:
                self.worker.host.sharing.withdraw(self.worker.host.one, self.job)
        missing = [slice for slice in self.slices if slice.flying]
        for slice in missing:
            slice.cancel()
            slice.way.cut(slice.entry)
        if missing and self.served == FAR:  # its turn comes, or has come, where it will never be
            self.torn = True
            self.worker.sim.machine.give_up(self, [slice.index for slice in missing])


class Slice(Alarm):
    """The part of an exchange that is one server's."""

    __slots__ = ("arrived", "entry", "flying", "index", "of", "queue", "served", "started", "way")

    def __init__(self, of: Exchange, index: int, way: Way) -> None:
        self.of, self.index, self.way = of, index, way
        self.queue = of.worker.sim.queues[index]
        self.entry: list[Any] | None = None
        self.arrived = self.started = self.served = 0
        self.flying = False  # over its way

    def ask(self, local: int) -> None:
        """A fetch's request to an independent server."""
        clock = self.of.worker.sim.clock
        self.set(clock, local + self.way.latency_ns - clock._now, SLICE_ARRIVE)

    def fly(self, then: Callbacks) -> None:
        """Over the way to or from its server, then call what `then` holds."""
        way = self.way
        self.flying = True
        if way.sharing is not None:
            self.entry = way.sharing.take(way.one, way.bytes, lambda: self._flown(then))
        else:
            self.set(self.of.worker.sim.clock, self.way.alone_ns + self.way.latency_ns, then)

    def _flown(self, then: Callbacks) -> None:
        self.entry = None
        self.set(self.of.worker.sim.clock, self.way.latency_ns, then)

    def serve(self) -> None:
        """An independent server has served it."""
        self.served = self.of.worker.sim.clock.now
        self.of.started = min(self.of.started, self.started)
        self.of.worker.sim.slice_served(self)


def _slice_arrives(slice: Slice) -> None:
    slice.flying = False
    slice.arrived = slice.of.worker.sim.clock.now
    slice.of.slice_arrives(slice.index)  # type: ignore[attr-defined]


def _slice_lands(slice: Slice) -> None:
    slice.flying = False
    slice.of.slice_lands()  # type: ignore[attr-defined]


SLICE_ARRIVE: Callbacks = (_slice_arrives,)
SLICE_LAND: Callbacks = (_slice_lands,)
