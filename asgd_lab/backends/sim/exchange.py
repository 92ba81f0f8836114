"""One push or fetch on its way between a worker and the servers, and when it passed each stage.

    push:   begun -client, to_host-> sent -flow, latency-> arrived -wait, service-> served -gate-> released -latency-> done
    fetch:  begun -latency-> arrived -wait, service-> served -gate-> released -flow, latency-> landed -to_device, client-> done

An exchange is its own alarm: it waits for one thing after the other. A wait of no time is a call. A vector in slices
passes sent to arrived, and released to landed, once a server, and the last slice counts.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from asgd_lab.backends.sim.accounts import Account
from asgd_lab.backends.sim.clock import FAR, Clock
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.network import Route
from asgd_lab.backends.sim.ordered import Divided, Piece
from asgd_lab.backends.sim.sharing import Processor
from asgd_lab.protocol.messages import Ack, Grant
from asgd_lab.protocol.replica import Replica

Stages = tuple[tuple[int, int], ...]
"""(heading, until when) of each stage, in order; `FAR` where it is not reached yet."""


class Owner(Protocol):
    """The worker that an exchange belongs to."""

    @property
    def number(self) -> int:
        """Which one."""

    @property
    def host(self) -> Processor | None:
        """What its software runs on, where others do as well."""

    @property
    def replica(self) -> Replica:
        """Its replica."""

    @property
    def alive(self) -> bool:
        """Whether it has neither crashed nor left."""

    def finished(self, exchange: Any) -> None:
        """All that others have to do with the exchange is over; it is done at its own `done`, now or later."""


class Exchange(Divided):
    """What pushes and fetches have in common."""

    __slots__ = (
        "begun",
        "client_ns",
        "clock",
        "done",
        "entry",
        "host",
        "in_flight",
        "independent",
        "job",
        "landed",
        "lost",
        "machine",
        "released",
        "route",
        "sent",
        "served",
        "torn",
        "worker",
    )
    slices: Sequence[Slice]
    answer: Grant | Ack
    """The server's, once it is released."""

    def __init__(
        self, worker: Owner, machine: Machine, routes: Sequence[Route], client_ns: int,
        slice_served: Callable[[Slice], object],
    ) -> None:  # fmt: skip
        """`slice_served` hears of what an independent server has served."""
        self.worker, self.machine, self.route = worker, machine, routes[0]
        self.clock: Clock = machine.clock
        self.client_ns = client_ns  # the worker's own software
        self.host, _ = machine.processors(worker.number)
        self.queue = machine.queues[0]
        divided = routes if len(routes) > 1 else ()
        self.slices = [Slice(self, index, route, slice_served) for index, route in enumerate(divided)]
        self.independent = machine.independent and len(routes) > 1
        self.entry: list[Any] | None = None  # its place on a route that is shared, while it is there
        self.job: list[Any] | None = None  # the same of its software, on a host that is shared
        self.left = 0  # slices that are still to come
        self.early = set()
        self.lost = False  # did its worker crash?
        self.torn = False  # and has it reached only some of the servers?
        self.in_flight = False  # is it between begin and done?
        self.begun = self.sent = self.arrived = self.started = self.served = self.released = self.landed = 0
        self.done = 0

    def _reset_slices(self) -> None:
        for slice in self.slices:
            slice.arrived = slice.started = slice.served = FAR

    def slice_arrives(self, server: int) -> None:
        """At one of several servers."""
        raise NotImplementedError

    def slice_lands(self) -> None:
        """From one of several servers, at the worker's host."""
        raise NotImplementedError

    @property
    def collected(self) -> bool:
        """Whether the server has it and has not answered."""
        return self.in_flight and self.served != FAR and self.released == FAR

    @property
    def waits_for(self) -> str:
        """What it has not passed, for a person who asks why nothing goes on."""
        if self.arrived == FAR:
            return "a transfer that never ends"
        return "the server, which does not answer" if self.served == FAR else "a grant that never comes"

    def stages(self) -> Stages:
        """What was waited for, and until when, in order."""
        raise NotImplementedError

    def charge(self, account: Account) -> None:
        """The whole of it, to the worker that has waited for it."""
        account.charge_stages(self.stages(), self.done)

    def cut(self, now: int) -> None:
        """Its worker is gone: what it has on a link of its own ends there."""
        raise NotImplementedError

    def lose(self) -> None:
        """Its worker is gone: what is on its way is lost, what a server has in its queue is served for nothing."""
        self.lost = True
        if self.served != FAR or self.arrived == FAR:
            self.cancel()
            self.route.cut(self.entry)
            if self.job is not None and self.host is not None:
                self.host.sharing.withdraw(self.host.one, self.job)
        missing = [slice for slice in self.slices if slice.in_flight]
        for slice in missing:
            slice.cancel()
            slice.route.cut(slice.entry)
        if missing and self.served == FAR:  # its turn comes, or has come, where it will never be
            self.torn = True
            self.machine.give_up(self, [slice.index for slice in missing])


class Slice(Piece):
    """The part of an exchange that is one server's."""

    __slots__ = ("_served", "clock", "entry", "in_flight", "index", "route")
    of: Exchange

    def __init__(self, of: Exchange, index: int, route: Route, served: Callable[[Slice], object]) -> None:
        self.of, self.index, self.route, self._served = of, index, route, served
        self.clock, self.queue = of.clock, of.machine.queues[index]
        self.entry: list[Any] | None = None
        self.arrived = self.started = self.served = 0
        self.in_flight = False  # over its route

    def ask(self, local: int) -> None:
        """A fetch's request to an independent server."""
        self.set(self.clock, local + self.route.latency_ns, slice_arrives)

    def transfer(self, then: Callable[[Slice], object]) -> None:
        """Over the route to or from its server, then call `then`."""
        route = self.route
        self.in_flight = True
        if route.sharing is not None:
            self.entry = route.sharing.take(route.one, route.bytes, lambda: self._transferred(then))
        else:
            self.set(self.clock, self.clock.now + route.alone_ns + route.latency_ns, then)

    def _transferred(self, then: Callable[[Slice], object]) -> None:
        self.entry = None
        self.set(self.clock, self.clock.now + self.route.latency_ns, then)

    def serve(self) -> None:
        """An independent server has served it."""
        self.served = self.clock.now
        self.of.started = min(self.of.started, self.started)
        self._served(self)


def slice_arrives(slice: Slice) -> None:
    """At its server."""
    slice.in_flight = False
    slice.arrived = slice.clock.now
    slice.of.slice_arrives(slice.index)


def slice_lands(slice: Slice) -> None:
    """At the worker's host."""
    slice.in_flight = False
    slice.of.slice_lands()
