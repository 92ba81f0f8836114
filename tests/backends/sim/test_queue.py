"""The servers' queues driven bare: in order of arrival, one at a time, against recursions and queueing theory."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from asgd_lab.backends.sim.clock import Alarm, Clock, Timer
from asgd_lab.backends.sim.ordered import Ordered
from asgd_lab.backends.sim.servers import Fcfs, OnCores, Queue, ServiceTimes
from asgd_lab.backends.sim.sharing import Capacity, Sharing
from asgd_lab.scenario.hardware import Hardware
from tests.backends.sim.laws import Floats, Ints, accept, batch_means_p, geometric_from_0, pooled_chi_square_p

FAR = 2**62


class Stated(ServiceTimes):
    """ServiceTimes whose times are stated, one after the other."""

    def __init__(self, times: list[int]) -> None:
        self._times = iter(times)

    @property
    def constant(self) -> bool:
        """They vary."""
        return False

    def next_ns(self, mean_ns: int) -> int:
        """The next service's nanoseconds."""
        return next(self._times)


class Asking(Alarm):
    """A request that notes (start, wait, end) of its service."""

    def __init__(self, clock: Clock, queue: Queue, served: list[tuple[int, int, int]]) -> None:
        self._clock, self.queue, self._served = clock, queue, served
        self.arrived = self.started = -1
        self.service_ns = MEAN_NS

    def arrive(self) -> None:
        self.arrived = self._clock.now
        self.queue.submit(self)  # type: ignore[arg-type]

    def serve(self, _: object) -> None:
        self._served.append((self.started, self.started - self.arrived, self._clock.now))


@given(
    requests=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=8), shared=st.booleans()
)
@settings(max_examples=200)
def test_the_server_serves_one_at_a_time_in_order_of_arrival(requests: list[tuple[int, int]], shared: bool) -> None:
    """Lindley's recursion: a service starts at the arrival or the end of the one before, whichever is later.

    Also where services take no time, and where one arrives at the very moment when the one before it has its end.
    """
    clock = Clock()
    requests = sorted(requests, key=lambda request: request[0])
    services = [service for _, service in requests]
    queue: Queue
    if shared:
        cores = Sharing(clock)
        one = cores.add([Capacity("cores", 1)], 1.0)
        queue = OnCores(clock, Stated(services), cores, one)
    else:
        queue = Fcfs(clock, Stated(services))
    served: list[tuple[int, int, int]] = []
    for arrival, _ in requests:
        Timer(clock, arrival, Asking(clock, queue, served).arrive)
    clock.run()
    assert queue.present == 0
    assert queue.busy_ns == sum(services)
    assert queue.present_ns == sum(end - arrival for (_, _, end), (arrival, _) in zip(served, requests, strict=True)), (
        "Little's law"
    )
    free, expected = 0, []
    for arrival, service in requests:
        start = max(arrival, free)
        free = start + service
        expected.append((start, start - arrival, free))
    assert served == expected


# ---------------------------------------------------------------- open queues

MEAN_NS = 10**6


def open_queue(distribution: str, load: float, count: int, seed: int) -> tuple[Floats, Ints, Fcfs]:
    """(waits in means of a service, numbers that arrivals found there) of Poisson arrivals at one server."""
    hardware = Hardware.model_validate({"server": {"push_s": MEAN_NS * 1e-9, "distribution": distribution}})
    clock = Clock()
    queue = Fcfs(clock, ServiceTimes(hardware.server, seed, 0))
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(MEAN_NS / load, count)).astype(np.int64)
    found = np.zeros(count, np.int64)
    served: list[tuple[int, int, int]] = []

    def arrive(index: int) -> None:
        found[index] = queue.present
        Asking(clock, queue, served).arrive()
        if index + 1 < count:
            Timer(clock, int(arrivals[index + 1]) - clock.now, lambda: arrive(index + 1))

    Timer(clock, int(arrivals[0]), lambda: arrive(0))
    clock.run()
    return np.array([wait for _, wait, _ in served]) / MEAN_NS, found, queue


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_arrivals_at_an_exponential_server_find_a_geometric_queue(load: float) -> None:
    """M/M/1: P(k) = (1-rho) rho^k, as arrivals see it (Kleinrock 1975, chapter 3; Wolff 1982).

    Pearson's chi-square over arrivals so far apart that they hardly know of one another: many relaxation times,
    1/(1-sqrt(rho))^2 services each. And the mean wait, rho/(1-rho), by batch means.
    """
    apart = round(5 * load / (1 - load**0.5) ** 2)
    waits, found, _ = open_queue("exponential", load, 25_000 if load < 0.7 else 60_000, seed=20)
    accept(pooled_chi_square_p(found[apart::apart], geometric_from_0(load / (1 - load))))
    accept(batch_means_p(waits[1_000:], load / (1 - load)))


def test_waits_before_a_constant_server_are_half_as_long() -> None:
    """M/D/1: rho/(2(1-rho)) (Pollaczek 1930, Khinchine 1932). Batch means; t with 19 degrees of freedom."""
    load = 0.7
    waits, _, queue = open_queue("constant", load, 25_000, seed=22)
    accept(batch_means_p(waits[1_000:], load / (2 * (1 - load))))
    assert queue.busy_ns == 25_000 * MEAN_NS, "the utilisation law"


# ---------------------------------------------------------------- several servers, one order


class Part:
    """The slice of a request that is one server's."""

    def __init__(self, of: Sliced) -> None:
        self.of = of
        self.arrived = self.started = self.served = FAR
        self.service_ns = MEAN_NS


class Sliced:
    """A request to several servers, which notes when all have served it."""

    def __init__(self, clock: Clock, name: int, servers: int, done: dict[int, int]) -> None:
        self.slices = [Part(self) for _ in range(servers)]
        self._clock, self._name, self._done = clock, name, done
        self.left, self.started, self.arrived = 0, FAR, 0
        self.early: set[int] = set()

    def serve(self, _: object) -> None:
        assert self._name not in self._done
        self._done[self._name] = self._clock.now


@st.composite
def sliced(draw: st.DrawFn) -> tuple[list[tuple[bool, list[int]]], list[list[int]]]:
    """(requests: a fetch or not, and when its slice arrives at each server; services of each server, in order)."""
    servers = draw(st.integers(2, 3))
    count = draw(st.integers(1, 6))
    times = st.integers(0, 40)
    requests = [(draw(st.booleans()), [draw(times) for _ in range(servers)]) for _ in range(count)]
    services = [[draw(st.integers(0, 15)) for _ in range(count)] for _ in range(servers)]
    return requests, services


@given(case=sliced())
@settings(max_examples=200)
def test_several_servers_serve_all_requests_in_the_order_of_the_first(case: Any) -> None:
    """Lindley's recursion for each server, over one order: that of arrival at the first.

    A service starts when the one before it has ended there, the slice has come, and the first server knows of the
    request; a request is done when its last slice is. A fetch has no slices: it arrives at the first server alone.
    """
    requests, services = case
    clock = Clock()
    ordered = Ordered(clock, [Stated(each) for each in services])
    done: dict[int, int] = {}
    made: list[Sliced] = []
    for name, (fetch, arrivals) in enumerate(requests):
        made.append(request := Sliced(clock, name, len(services), done))
        for server, time in enumerate(arrivals[:1] if fetch else arrivals):

            def submit(request: Sliced = request, server: int = server, fetch: bool = fetch) -> None:
                ordered.submit(request, server, fetch)  # type: ignore[arg-type]

            Timer(clock, time, submit)
    clock.run()
    order = sorted(range(len(requests)), key=lambda name: requests[name][1][0])
    expected = dict.fromkeys(order, 0)
    busy = [0] * len(services)
    for server, times in enumerate(services):
        free = 0
        for name, service in zip(order, times, strict=True):
            fetch, arrivals = requests[name]
            there = arrivals[0] if fetch else max(arrivals[0], arrivals[server])
            free = max(free, there) + service
            busy[server] += service
            expected[name] = max(expected[name], free)
    assert done == expected
    assert [queue.busy_ns for queue in ordered.queues] == busy
    for server, queue in enumerate(ordered.queues):
        parts = [request.slices[server] for request in made]
        assert queue.present_ns == sum(part.served - part.arrived for part in parts), "Little's law"
        assert queue.busy_ns == sum(part.served - part.started for part in parts)
    assert all(queue.present == 0 for queue in ordered.queues)


def test_slices_that_came_early_are_forgotten_with_a_push_that_never_gets_a_place() -> None:
    """Its worker crashes while the first server's slice is under way: nobody serves the others."""
    clock, done = Clock(), {}  # type: ignore[var-annotated]
    ordered = Ordered(clock, [Stated([3]), Stated([3])])
    torn, next_one = Sliced(clock, 0, 2, done), Sliced(clock, 1, 2, done)
    for time, request, server in ((5, torn, 1), (9, next_one, 1), (10, next_one, 0)):
        Timer(clock, time, lambda request=request, server=server: ordered.submit(request, server, False))  # type: ignore[misc]
    Timer(clock, 8, lambda: ordered.give_up(torn, [0]))  # type: ignore[arg-type]
    clock.run()
    assert done == {1: 13}
    assert [queue.present_ns for queue in ordered.queues] == [3, (8 - 5) + (13 - 9)]
