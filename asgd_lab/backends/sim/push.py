"""A push: from a worker's buffer over its host and the link, through the server's queue, and the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgd_lab.backends.sim.accounts import CLIENT, GATE, LINK, QUEUE, STAGING, Account
from asgd_lab.backends.sim.clock import FAR
from asgd_lab.backends.sim.exchange import Exchange, Owner, Stages, slice_arrives
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.network import UP
from asgd_lab.protocol.messages import ALL, Ack, PushRequest


class Push(Exchange):
    """The push from one buffer of a worker, reused for one push after the other."""

    __slots__ = ("_alone_ns", "_is_encoded", "_to_send_ns", "answer", "behind", "distance", "request", "to_host_ns")
    request: PushRequest
    answer: Ack
    behind: list[Any]
    """Fetches of the same part that are served after it."""

    def __init__(
        self, worker: Owner, machine: Machine, served: Callable[[Push], object], part: int = ALL, size_bytes: int = 0
    ) -> None:
        """`served` is called when the servers have served it; for the rest see `Fetch`."""
        portion = machine.portion(UP, worker.number, part, size_bytes)
        costs = portion.costs
        super().__init__(worker, machine, portion, costs.client_push_ns, costs.server_push_ns)
        self.serve, self.behind = served, []
        self.distance = 0.0
        self._alone_ns = 0  # nanoseconds of the transfer on an unshared link
        self.to_host_ns = costs.to_host_ns
        self._to_send_ns = self.client_ns + self.to_host_ns  # with a core for its worker's software alone
        self._is_encoded = worker.replica.codec is not None

    def begin(self, request: PushRequest, local: int) -> None:
        """Begin at the worker's own time `local`, now or later."""
        self.in_flight, self.begun = True, local
        self.sent = self.arrived = self.served = self.released = self.done = FAR
        if self.slices:
            self._reset_slices()
        self.request = request
        now = self.clock.now
        if self.host is not None and self.client_ns:
            if local > now:
                self.set(self.clock, local, _prepare)
            else:
                self.prepare()
            return
        at = local + self._to_send_ns
        if at > now:
            self.set(self.clock, at, _send)
        else:
            self.send()

    def prepare(self) -> None:
        """Run the worker's software on a host with shared cores, once for all parts."""
        assert self.host is not None
        if self.parts[0] is self:
            self.job = self.host.sharing.take(self.host.one, self.client_ns, self._prepared)

    def _prepared(self) -> None:
        self.job = None
        for push in self.parts:
            push.set(self.clock, self.clock.now + self.to_host_ns, _send)

    def send(self) -> None:
        """Start the transfer from the host."""
        clock, route = self.clock, self.route
        self.sent = now = clock.now
        if self.slices:
            self.left = 0
            for slice in self.slices:
                slice.transfer(slice_arrives)
            return
        if route.sharing is not None:
            size = self._of_size(route.bytes) if self._is_encoded else route.bytes
            self.entry = route.sharing.take(route.one, size, self._transferred)
            return
        alone_ns = route.alone_ns
        if alone_ns:
            if self._is_encoded:
                alone_ns = round(self._of_size(alone_ns))
            self._alone_ns = alone_ns
            self.machine.network.private[UP].add(now, now + alone_ns)
        arrival = now + alone_ns + route.latency_ns
        if arrival > now:
            self.set(clock, arrival, _arrive)
        else:
            self.arrive()

    def _of_size(self, whole: float) -> float:
        """As much of what a whole update takes as this encoded one's bytes on the wire are."""
        size_bytes, full_bytes = self.request.size_bytes, self.size_bytes
        return whole if size_bytes == full_bytes else whole * size_bytes / full_bytes

    def _transferred(self) -> None:
        self.entry = None
        latency_ns = self.route.latency_ns
        if latency_ns:
            self.set(self.clock, self.clock.now + latency_ns, _arrive)
        else:
            self.arrive()

    def arrive(self) -> None:
        """Enter the server's queue."""
        self.arrived = self.clock.now
        self.queue.submit(self)

    def slice_arrives(self, server: int) -> None:
        """A slice has arrived at one of several servers."""
        self.arrived = self.clock.now if self.arrived == FAR else max(self.arrived, self.clock.now)
        self.machine.ordered.submit(self, server, False)

    def release(self, ack: Ack) -> None:
        """The server's answer leaves it; the worker hears it a latency later."""
        now = self.clock.now
        self.answer, self.released = ack, now
        self.done = now + self.route.latency_ns
        self.worker.finished(self)

    def cut(self, now: int) -> None:
        """The worker has crashed: end the transfer on an unshared link."""
        self.machine.network.private[UP].cut(self.sent, self.sent + self._alone_ns, now)

    def charge(self, account: Account) -> None:
        """Charge all stages, in one step if the worker waited from the beginning."""
        if account.until != self.begun or self.host is not None:
            account.charge_stages(self.stages(), self.done)
            return
        spent, sent, arrived, served, released = (
            account.spent_ns, self.sent, self.arrived, self.served, self.released
        )  # fmt: skip
        if sent > self.begun:
            spent[CLIENT] += self.client_ns
            spent[STAGING] += sent - self.begun - self.client_ns
        account.until = done = self.done
        spent[LINK] += arrived - sent + done - released
        spent[QUEUE] += served - arrived
        if released > served:
            spent[GATE] += released - served

    def stages(self) -> Stages:
        """See the head of `exchange`."""
        prepared = self.begun + self.client_ns if self.host is None else max(self.begun, self.sent - self.to_host_ns)
        return (
            (CLIENT, prepared), (STAGING, self.sent), (LINK, self.arrived), (QUEUE, self.served),
            (GATE, self.released), (LINK, self.done),
        )  # fmt: skip


_prepare, _send, _arrive = Push.prepare, Push.send, Push.arrive
