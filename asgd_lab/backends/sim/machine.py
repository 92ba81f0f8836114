"""The simulated machine of the scenario's hardware: processors, network, servers, and their meters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from asgd_lab.backends.sim.accounts import Meters
from asgd_lab.backends.sim.clock import Clock
from asgd_lab.backends.sim.network import Network, Route
from asgd_lab.backends.sim.ordered import Divided, Ordered
from asgd_lab.backends.sim.servers import Fcfs, OnCores, Queue, ServiceTimes
from asgd_lab.backends.sim.sharing import Capacity, Processor, Sharing
from asgd_lab.hardware.costs import Costs, nanoseconds
from asgd_lab.hardware.step_times import mean_step_s
from asgd_lab.scenario import Scenario


class Portion(NamedTuple):
    """As much of the vector as an exchange moves."""

    size_bytes: int
    costs: Costs
    routes: Sequence[Route]
    """To or from each server."""


class Machine:
    """The processors, network and servers of a run."""

    def __init__(self, clock: Clock, scenario: Scenario, size_bytes: int, fetches: int, pushes: int) -> None:
        """`fetches`, `pushes`: exchanges that a worker may have in flight at once."""
        hardware = scenario.hardware
        self._scenario = scenario
        self.clock = clock
        self.costs, self.size_bytes = Costs.of(hardware, size_bytes), size_bytes
        self.network = Network(clock, hardware, scenario.workers, size_bytes, crowded=max(fetches, pushes) > 1)
        self.shared: list[Processor] = []
        self._node = self._processor(clock, "cores", hardware.cores)
        hosts, devices = -(-scenario.workers // hardware.host.workers), -(-scenario.workers // hardware.device.workers)
        # A worker trains beside its exchanges: with a core for each of these, none is ever short of cores.
        is_short = (hardware.host.cores or 0) < hardware.host.workers * (1 + fetches + pushes)
        cores = hardware.host.cores if is_short else None
        self._hosts = [self._processor(clock, f"host {host}", cores) for host in range(hosts)]
        shared = 1 if hardware.device.workers > 1 else None
        self._devices = [self._processor(clock, f"device {device}", shared) for device in range(devices)]
        self.independent, self.one_sided = hardware.server.independent, hardware.server.one_sided_fetch
        count = hardware.server.count
        services = [ServiceTimes(hardware.server, scenario.seed, server) for server in range(count)]
        self._ordered: Ordered | None = None
        self.queues: list[Queue]
        if count > 1 and not self.independent:
            self._ordered = Ordered(clock, services)
            self.queues = list(self._ordered.queues)
        elif self._node is not None:
            self.queues = [OnCores(clock, one, self._node.sharing, self._node.one) for one in services]
        else:
            self.queues = [Fcfs(clock, one) for one in services]
        stated = getattr(scenario.task, "step_s", None)
        self.meters = Meters(clock, nanoseconds(mean_step_s(hardware.compute, stated)), self.network.move)
        for index, queue in enumerate(self.queues):
            self.meters.add(f"server {index}" if count > 1 else "server", _of_queue(queue))
        for capacity in self.network.capacities:
            self.meters.add(capacity.name, _of_capacity(capacity))
        for name, read in self.network.private_meters(clock):
            self.meters.add(name, read)

    def processors(self, worker: int) -> tuple[Processor | None, Processor | None]:
        """The shared processors of a worker's software and of its training; None: not shared."""
        hardware = self._scenario.hardware
        host = self._node or self._hosts[worker // hardware.host.workers]
        device = self._devices[worker // hardware.device.workers]
        return host, device or (host if self._scenario.backend.device == "cpu" else None)

    def portion(self, direction: int, worker: int, size_bytes: int | None = None) -> Portion:
        """The costs and routes of so many bytes of the vector; None: of all.

        Each cost is the sum of a constant, which every message takes, and of a time by the byte. A message of a part
        has that part's bytes on the link, in staging and at the server, and a message without parameters has none.
        """
        routes, whole = self.network.routes[direction][worker], self.size_bytes
        if size_bytes is None:
            return Portion(whole, self.costs, routes)
        share = size_bytes / whole if whole else 0.0
        scaled = [replace(route, bytes=route.bytes * share, alone_ns=round(route.alone_ns * share)) for route in routes]
        return Portion(size_bytes, Costs.of(self._scenario.hardware, size_bytes), scaled)

    def submit(self, request: Divided, server: int, fetch: bool) -> None:
        """A slice has arrived at its server."""
        if self._ordered is not None:
            self._ordered.submit(request, server, fetch)
        else:
            self.queues[server].submit(request.slices[server])

    def give_up(self, request: Divided, servers: list[int]) -> None:
        """Tell the servers that slices of a push will never arrive."""
        if self._ordered is not None:
            self._ordered.give_up(request, servers)

    def go_down(self, until: int) -> None:
        """Stop all servers until then; an interrupted service is repeated."""
        for queue in self.queues:
            queue.go_down(until)

    def _processor(self, clock: Clock, name: str, count: int | None) -> Processor | None:
        if count is None:
            return None
        sharing = Sharing(clock)
        self.shared.append(Processor(sharing, sharing.add([Capacity(name, float(count))], 1.0)))
        return self.shared[-1]


def _of_queue(queue: Queue) -> Callable[[], tuple[float, float]]:
    return lambda: (queue.busy_ns, queue.present_ns)


def _of_capacity(capacity: Capacity) -> Callable[[], tuple[float, float]]:
    return lambda: (capacity.used / capacity.per_ns, capacity.present_ns)
