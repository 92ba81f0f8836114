"""The simulator's rivals: asynchronous SGD over a fair-shared link and a server queue, by hand in simpy.

`plain` is what an expert writes first: a generator a worker, a `simpy.Resource` for the server. `tuned` is what they
write when that is too slow: the server is a moment at which it will be free, and waits that follow one another are one.
Both draw compute times in blocks, keep a histogram of staleness, and know neither gates, budgets, faults nor where the
time goes.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from asgd_lab.hardware.step_times import BLOCK, BLOCKS

N_SYNC = 10
STEP_S = 0.01
CV = 0.1
SIZE_BYTES = 1_000_000
LATENCY_S = 1e-5


@dataclass
class System:
    """The sizes of one run, half of whose link and server are used."""

    workers: int
    rounds: int
    version: int = 0
    staleness: Counter[int] = field(default_factory=Counter)
    random: list[np.random.Generator] = field(default_factory=list)  # each worker's

    def __post_init__(self) -> None:
        self.random = [np.random.default_rng(worker) for worker in range(self.workers)]

    @property
    def block(self) -> int:
        """Rounds drawn at once: as many minibatches as the simulator draws."""
        return max(16, min(BLOCK, BLOCKS // self.workers)) // N_SYNC

    @property
    def bandwidth(self) -> float:
        """Of the shared link, bytes a second in each direction."""
        return 2 * self.workers * SIZE_BYTES / (N_SYNC * STEP_S)

    @property
    def service_s(self) -> float:
        """Of a push, at the server."""
        return 0.5 * N_SYNC * STEP_S / self.workers


class Link:
    """Fair sharing by a virtual clock and a heap."""

    def __init__(self, env: simpy.Environment, bandwidth: float) -> None:
        self.env, self.bandwidth = env, bandwidth
        self.virtual = self.since = 0.0
        self.flows: list[tuple[float, int, simpy.Event]] = []
        self.sequence = 0
        self.alarm: simpy.Event | None = None

    def transfer(self, size: float) -> simpy.Event:
        self.advance()
        done = self.env.event()
        self.sequence += 1
        heapq.heappush(self.flows, (self.virtual + size, self.sequence, done))
        self.set_alarm()
        return done

    def advance(self) -> None:
        now = self.env.now
        if self.flows:
            self.virtual += (now - self.since) * self.bandwidth / len(self.flows)
        self.since = now

    def set_alarm(self) -> None:
        if not self.flows:
            self.alarm = None
            return
        left = (self.flows[0][0] - self.virtual) * len(self.flows) / self.bandwidth
        self.alarm = self.env.timeout(max(0.0, left))
        self.alarm.callbacks.append(self.ring)

    def ring(self, event: simpy.Event) -> None:
        if event is not self.alarm:
            return
        self.advance()
        while self.flows and self.flows[0][0] <= self.virtual + 1e-3:
            heapq.heappop(self.flows)[2].succeed()
        self.set_alarm()


def compute_times(system: System, worker: int) -> Generator[float, None, None]:
    variance, random, block = np.log1p(CV**2), system.random[worker], system.block
    while True:
        drawn = random.lognormal(np.log(STEP_S) - variance / 2, np.sqrt(variance), (block, N_SYNC))
        yield from drawn.sum(axis=1).tolist()


def plain(system: System) -> None:
    env = simpy.Environment()
    up, down, server = Link(env, system.bandwidth), Link(env, system.bandwidth), simpy.Resource(env)
    over = env.event()

    def worker(number: int) -> Generator[Any, Any, None]:
        times = compute_times(system, number)
        while True:
            yield env.timeout(LATENCY_S)
            with server.request() as turn:
                yield turn
                base = system.version
            yield down.transfer(SIZE_BYTES)
            yield env.timeout(LATENCY_S)
            yield env.timeout(next(times))
            yield up.transfer(SIZE_BYTES)
            yield env.timeout(LATENCY_S)
            with server.request() as turn:
                yield turn
                yield env.timeout(system.service_s)
                system.staleness[system.version - base] += 1
                system.version += 1
                if system.version == system.rounds:
                    over.succeed()
            yield env.timeout(LATENCY_S)

    for number in range(system.workers):
        env.process(worker(number))
    env.run(until=over)


def tuned(system: System) -> None:
    env = simpy.Environment()
    up, down = Link(env, system.bandwidth), Link(env, system.bandwidth)
    over = env.event()
    free_at = 0.0

    def worker(number: int) -> Generator[Any, Any, None]:
        nonlocal free_at
        times = compute_times(system, number)
        yield env.timeout(LATENCY_S)
        while True:
            if free_at > env.now:
                yield env.timeout(free_at - env.now)
            base = system.version
            yield down.transfer(SIZE_BYTES)
            yield env.timeout(LATENCY_S + next(times))
            yield up.transfer(SIZE_BYTES)
            yield env.timeout(LATENCY_S)
            free_at = max(env.now, free_at) + system.service_s
            yield env.timeout(free_at - env.now)
            system.staleness[system.version - base] += 1
            system.version += 1
            if system.version == system.rounds:
                over.succeed()
            yield env.timeout(2 * LATENCY_S)

    for number in range(system.workers):
        env.process(worker(number))
    env.run(until=over)
