"""The simulated machine of the scenario's hardware: processors, network, servers, and their meters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from asgd_lab.backends.sim.accounts import Meters
from asgd_lab.backends.sim.clock import Clock
from asgd_lab.backends.sim.network import Network, Route
from asgd_lab.backends.sim.ordered import Ordered
from asgd_lab.backends.sim.servers import Fcfs, OnCores, Queue, ServiceTimes
from asgd_lab.backends.sim.sharing import Capacity, Processor, Sharing
from asgd_lab.hardware.costs import Costs, nanoseconds
from asgd_lab.hardware.step_times import mean_step_s
from asgd_lab.protocol.messages import ALL, NO_PART
from asgd_lab.scenario import Scenario


class Portion(NamedTuple):
    """As much of the vector as an exchange moves."""

    size_bytes: int
    costs: Costs
    routes: Sequence[Route]
    """To or from each server."""
    queue: Queue
    """The server's; of several servers, the first one's."""


class Machine:
    """The processors, network and servers of a run."""

    def __init__(self, clock: Clock, scenario: Scenario, size_bytes: int, parts: int, depth: int) -> None:
        """`parts` of the vector, and `depth`: pushes of each that a worker may have in flight."""
        hardware = scenario.hardware
        self.apart = hardware.server.independent
        """Whether each part of the vector has a server. A worker's software then handles all parts together."""
        fetches = 1 if self.apart else max(1, parts)  # for a worker's software
        pushes = fetches * depth
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
        self.one_sided = hardware.server.one_sided_fetch
        count = hardware.server.count
        services = [ServiceTimes(hardware.server, scenario.seed, server) for server in range(count)]
        in_order = count > 1 and not self.apart
        self.ordered = Ordered(clock, services if in_order else [])  # the servers that serve in one order, if several
        self.queues: list[Queue]
        if in_order:
            self.queues = list(self.ordered.queues)
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

    def portion(self, direction: int, worker: int, part: int = ALL, size_bytes: int = 0) -> Portion:
        """The costs and routes of the vector, or of a `part` with so many bytes.

        Each cost is the sum of a constant, which every message takes, and of a time by the byte. A message of a part
        has that part's bytes on the link, in staging and at the server, and a message without parameters has none. If
        each part has a server, all parts are copied from and to the device together.
        """
        routes, queues = self.network.routes[direction][worker], self.queues
        if part == ALL:
            return Portion(self.size_bytes, self.costs, routes, queues[0])
        if self.apart and part != NO_PART:
            return Portion(size_bytes, self.costs, [routes[part]], queues[part])
        share = size_bytes / self.size_bytes if self.size_bytes else 0.0
        route = replace(routes[0], bytes=routes[0].bytes * share, alone_ns=round(routes[0].alone_ns * share))
        return Portion(size_bytes, Costs.of(self._scenario.hardware, size_bytes), [route], queues[0])

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
