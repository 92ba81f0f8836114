"""The routes between workers and servers: the links of each transfer, and their sharing.

A transfer passes its host's network card, the link of its worker's group to that server, and the server's network card,
if the scenario limits them. On unshared links its time is known at once; shared links are divided fairly (see
`sharing`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asgd_lab.backends.sim.clock import Clock
from asgd_lab.backends.sim.sharing import Capacity, Class, Sharing
from asgd_lab.hardware.costs import nanoseconds, transfer_ns
from asgd_lab.hardware.step_times import group_of
from asgd_lab.scenario.hardware import Hardware, Link

UP, DOWN = 0, 1
NOBODY = Class((), 0.0)


@dataclass(slots=True)
class Route:
    """One direction between a worker and a server, for slices of one size."""

    latency_ns: int
    alone_ns: int = 0  # a slice's time on unshared links
    bytes: float = 0.0
    sharing: Sharing | None = None
    one: Class = NOBODY  # the class of its takers

    def cut(self, entry: list[Any] | None) -> None:
        """End a transfer whose sender or receiver has crashed."""
        if self.sharing is not None and entry is not None:
            self.sharing.withdraw(self.one, entry)


class Network:
    """All routes: `routes[direction][worker][server]`, and the capacities that are shared, in order of their names."""

    def __init__(self, clock: Clock, hardware: Hardware, workers: int, size_bytes: int, crowded: bool) -> None:
        """`crowded`: a worker may have several transfers in flight in one direction, which then share its own link."""
        self._hardware, self._workers = hardware, workers
        self._slice_bytes = size_bytes / hardware.server.count
        self._crowded = crowded or hardware.server.count > 1
        self._groups = group_of(hardware, workers)
        self._named: dict[str, Capacity] = {}
        plans = [
            [[self._plan(worker, server, direction) for server in range(hardware.server.count)]
             for worker in range(workers)]
            for direction in (UP, DOWN)
        ]  # fmt: skip
        sharings = _components(clock, [plan[2] for plan in _each(plans)])
        self.sharings = list(dict.fromkeys(sharings.values()))
        made: dict[Any, Route] = {}  # workers with equal links have one route: less memory to look at
        self.routes = [
            [[made.get(plan) or made.setdefault(plan, self._route(sharings, *plan)) for plan in servers]
             for servers in side]
            for side in plans
        ]  # fmt: skip
        self.private = (PrivateTransfers(), PrivateTransfers())
        self.capacities = [self._named[name] for name in sorted(self._named) if not name.startswith("worker ")]

    def move(self) -> None:
        """Bring all counters up to now."""
        for sharing in self.sharings:
            sharing.move()

    def private_meters(self, clock: Clock) -> Iterator[tuple[str, Callable[[], tuple[float, float]]]]:
        """Readers for the workers' unshared links together, one per direction: mean utilisation, and transfers."""
        for direction, side in ((UP, "up"), (DOWN, "down")):
            mine = [one for name, one in self._named.items() if name.startswith("worker ") and name.endswith(side)]
            if mine:
                yield f"workers' links {side}", _all_of(mine)
            elif any(route.alone_ns for routes in self.routes[direction] for route in routes):
                yield f"workers' links {side}", self.private[direction].reader(clock, self._workers)

    def _plan(self, worker: int, server: int, direction: int) -> tuple[int, float, tuple[Capacity, ...], float]:
        """(latency, unshared bytes per nanosecond, shared capacities, cap of a flow)."""
        hardware, side = self._hardware, ("up", "down")[direction]
        name, link = self._link(worker, server)
        bandwidth = (link.up, link.down)[direction]
        host, shared, alone, cap = hardware.host, [], math.inf, math.inf
        if host.bandwidth_bytes_per_s is not None:
            if host.workers > 1 or self._crowded:
                shared.append(self._capacity(f"host {worker // host.workers} {side}", host.bandwidth_bytes_per_s))
            else:
                alone = host.bandwidth_bytes_per_s * 1e-9
        if bandwidth is not None:
            if link.shared:
                shared.append(self._capacity(f"{name} {side}", bandwidth))
                cap = math.inf if link.flow_bytes_per_s is None else link.flow_bytes_per_s * 1e-9
            elif self._crowded:
                shared.append(self._capacity(f"worker {worker} {name} {side}", bandwidth))
            else:
                alone = min(alone, bandwidth * 1e-9)
        if hardware.server.bandwidth_bytes_per_s is not None:
            server_name = f"server {server}" if hardware.server.count > 1 else "server"
            shared.append(self._capacity(f"{server_name} card {side}", hardware.server.bandwidth_bytes_per_s))
        return nanoseconds(link.latency_s), alone, tuple(shared), min(cap, alone)

    def _link(self, worker: int, server: int) -> tuple[str, Link]:
        group = self._groups[worker]
        if group >= 0:
            name = self._hardware.groups[group].name
            for index, link in enumerate(self._hardware.links):
                if link.group == name and (link.servers is None or server in link.servers):
                    return f"link {index} ({name})", link
        return "link", self._hardware.link

    def _capacity(self, name: str, bytes_per_s: float) -> Capacity:
        if name not in self._named:
            self._named[name] = Capacity(name, bytes_per_s * 1e-9)
        return self._named[name]

    def _route(
        self, sharings: dict[Capacity, Sharing], latency_ns: int, alone: float, shared: tuple[Capacity, ...], cap: float
    ) -> Route:
        size = self._slice_bytes
        if not shared or not size:
            return Route(latency_ns, transfer_ns(size, None if math.isinf(alone) else alone * 1e9))
        sharing = sharings[shared[0]]
        return Route(latency_ns, bytes=size, sharing=sharing, one=sharing.add(shared, cap))


class PrivateTransfers:
    """Counters of transfers on unshared links, in one direction."""

    __slots__ = ("_ahead", "_sum")

    def __init__(self) -> None:
        self._sum = 0
        self._ahead: deque[tuple[int, int]] = deque()  # (start, end) of the newest, which may be unfinished

    def add(self, start: int, end: int) -> None:
        """Count a transfer that starts now."""
        self._sum += end - start
        self._ahead.append((start, end))
        while self._ahead[0][1] <= start:
            self._ahead.popleft()

    def cut(self, start: int, end: int, now: int) -> None:
        """End a transfer now, if it is in flight."""
        if now < end and (start, end) in self._ahead:
            self._ahead.remove((start, end))
            self._sum -= end - now

    def reader(self, clock: Clock, links: int) -> Callable[[], tuple[float, float]]:
        """A reader for a meter, for so many links."""

        def read() -> tuple[float, float]:
            now = clock.now
            flown = self._sum - sum(max(0, end - max(start, now)) for start, end in self._ahead)
            return flown / links, flown

        return read


def _all_of(capacities: Sequence[Capacity]) -> Callable[[], tuple[float, float]]:
    return lambda: (
        sum(one.used / one.per_ns for one in capacities) / len(capacities),
        sum(one.present_ns for one in capacities),
    )


def _each(plans: Sequence[Sequence[Sequence[Any]]]) -> Iterator[Any]:
    for side in plans:
        for servers in side:
            yield from servers


def _components(clock: Clock, together: Sequence[tuple[Capacity, ...]]) -> dict[Capacity, Sharing]:
    """One `Sharing` for each set of capacities connected by flows, directly or through other capacities."""
    parent: dict[Capacity, Capacity] = {}

    def root(one: Capacity) -> Capacity:
        while parent.setdefault(one, one) is not one:
            parent[one] = one = parent[parent[one]]
        return one

    for capacities in together:
        for one in capacities:
            parent[root(one)] = root(capacities[0])
    made: dict[Capacity, Sharing] = {}
    return {one: made.setdefault(root(one), Sharing(clock)) for one in parent}
