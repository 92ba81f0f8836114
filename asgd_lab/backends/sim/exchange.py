"""A push or a fetch between a worker and the servers, and the time at which it passed each stage.

    push:   begun -client, to_host-> sent -flow, latency-> arrived -wait, service-> served -gate-> released -latency-> done
    fetch:  begun -latency-> arrived -wait, service-> served -gate-> released -flow, latency-> landed -to_device, client-> done

An exchange is its own alarm: it waits for one stage after the other. A wait of zero time is a call. A vector in slices
passes sent to arrived, and released to landed, once per server, and the last slice counts. Of a vector in parts, each
part has exchanges of its own, with one server.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from asgd_lab.backends.sim.accounts import Account
from asgd_lab.backends.sim.clock import FAR, Clock
from asgd_lab.backends.sim.machine import Machine, Portion
from asgd_lab.backends.sim.network import Route
from asgd_lab.backends.sim.ordered import Divided, Piece
from asgd_lab.backends.sim.sharing import Processor
from asgd_lab.protocol.messages import Ack, Grant
from asgd_lab.protocol.replica import Replica

Stages = tuple[tuple[int, int], ...]
"""(heading, end) of each stage, in order; `FAR` for a stage not reached yet."""


_NONE: set[int] = set()  # for exchanges with one server, which have no slices


class Owner(Protocol):
    """The worker that an exchange belongs to."""

    @property
    def number(self) -> int:
        """The worker's number."""

    @property
    def host(self) -> Processor | None:
        """The shared processor of its software, or None."""

    @property
    def replica(self) -> Replica:
        """The worker's replica."""

    @property
    def alive(self) -> bool:
        """Whether the worker has neither crashed nor left."""

    def finished(self, exchange: Any) -> None:
        """All that others have to do with the exchange is over; it is done at its own `done`, now or later."""


class Exchange(Divided):
    """Base of pushes and fetches."""

    __slots__ = (
        "begun",
        "client_ns",
        "clock",
        "done",
        "entry",
        "host",
        "in_flight",
        "job",
        "landed",
        "lost",
        "machine",
        "parts",
        "released",
        "route",
        "sent",
        "served",
        "size_bytes",
        "torn",
        "worker",
    )
    slices: Sequence[Slice]
    parts: Sequence[Any]
    """The exchanges of all parts of a vector with a server for each, which the worker's software handles together."""
    answer: Grant | Ack
    """The server's answer, once it is released."""

    def __init__(self, worker: Owner, machine: Machine, portion: Portion, client_ns: int, service_ns: int) -> None:
        routes = portion.routes
        self.worker, self.machine, self.route = worker, machine, routes[0]
        self.size_bytes = portion.size_bytes  # of the parameters that it moves, as they are
        self.clock: Clock = machine.clock
        self.client_ns = client_ns  # cost of the worker's own software
        self.service_ns = service_ns
        self.host, _ = machine.processors(worker.number)
        self.parts = (self,)
        self.queue = portion.queue
        self.slices = [Slice(self, *each) for each in enumerate(routes)] if len(routes) > 1 else ()
        self.entry: list[Any] | None = None  # its entry on a shared route, while it is there
        self.job: list[Any] | None = None  # the entry of its software on a shared host
        self.left = 0  # slices still to come
        self.early = set() if self.slices else _NONE
        self.lost = False  # did its worker crash?
        self.torn = False  # and had it reached only some of the servers?
        self.in_flight = False  # is it between `begin` and `done`?
        self.begun = self.sent = self.arrived = self.started = self.served = self.released = self.landed = 0
        self.done = 0

    def _reset_slices(self) -> None:
        self.started = FAR
        for slice in self.slices:
            slice.arrived = slice.started = slice.served = FAR

    def slice_arrives(self, server: int) -> None:
        """A slice has arrived at one of several servers."""
        raise NotImplementedError

    def slice_lands(self) -> None:
        """A slice from one of several servers has arrived at the worker's host."""
        raise NotImplementedError

    def begin(self, request: Any, local: int) -> None:
        """Begin at the worker's own time `local`, now or later."""
        raise NotImplementedError

    @property
    def collected(self) -> bool:
        """Whether the server has served it and not answered yet."""
        return self.in_flight and self.served != FAR and self.released == FAR

    @property
    def waits_for(self) -> str:
        """The stage that it waits for, for messages about deadlocks."""
        if self.arrived == FAR:
            return "a transfer that never ends"
        return "the server, which does not answer" if self.served == FAR else "a grant that never comes"

    def stages(self) -> Stages:
        """The stages and their ends, in order."""
        raise NotImplementedError

    def charge(self, account: Account) -> None:
        """Charge all stages to the worker, which has waited for them."""
        account.charge_stages(self.stages(), self.done)

    def cut(self, now: int) -> None:
        """Its worker has crashed: end its transfer on an unshared link."""
        raise NotImplementedError

    def lose(self) -> None:
        """Its worker has crashed: transfers are lost; a request in a server's queue is served without effect."""
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
        if missing and self.served == FAR:  # its turn would come at a server that never gets the slice
            self.torn = True
            self.machine.ordered.give_up(self, [slice.index for slice in missing])


class Slice(Piece):
    """The slice of an exchange for one server."""

    __slots__ = ("clock", "entry", "in_flight", "index", "route")
    of: Exchange

    def __init__(self, of: Exchange, index: int, route: Route) -> None:
        self.of, self.index, self.route = of, index, route
        self.clock, self.queue, self.service_ns = of.clock, of.machine.queues[index], of.service_ns
        self.entry: list[Any] | None = None
        self.arrived = self.started = self.served = 0
        self.in_flight = False  # is it on its route?

    def transfer(self, then: Callable[[Slice], object]) -> None:
        """Transfer the slice to or from its server, then call `then`."""
        route = self.route
        self.in_flight = True
        if route.sharing is not None:
            self.entry = route.sharing.take(route.one, route.bytes, lambda: self._transferred(then))
        else:
            self.set(self.clock, self.clock.now + route.alone_ns + route.latency_ns, then)

    def _transferred(self, then: Callable[[Slice], object]) -> None:
        self.entry = None
        self.set(self.clock, self.clock.now + self.route.latency_ns, then)


def slice_arrives(slice: Slice) -> None:
    """The slice has arrived at its server."""
    slice.in_flight = False
    slice.arrived = slice.clock.now
    slice.of.slice_arrives(slice.index)


def slice_lands(slice: Slice) -> None:
    """The slice has arrived at the worker's host."""
    slice.in_flight = False
    slice.of.slice_lands()
