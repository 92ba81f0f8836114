"""Processor sharing: a node whose cores are shared fairly by whoever computes, as an operating system shares them.

Every job gets a core of its own while there are enough, and an equal share of all cores while there are not. A virtual
clock runs at the rate that every job gets; a job that needs d seconds of a core is done when that clock has advanced by
d, so that a change of the number of jobs moves one clock and not every job.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from asgd_lab.backends.sim.clock import Clock


class Cores:
    """`count` cores. Demands are integer nanoseconds of one core."""

    def __init__(self, env: Clock, count: int) -> None:
        self._env, self._count = env, count
        self._served = 0.0  # virtual clock: nanoseconds of a core that each job present has had
        self._since = 0  # when it was last advanced
        self._jobs: list[tuple[float, int, Callable[[object], None]]] = []  # (virtual end, sequence, callback)
        self._sequence = 0
        self._alarm = 0  # only the newest alarm counts

    def work(self, demand_ns: int, done: Callable[[object], None]) -> None:
        """Call `done` when a job of `demand_ns` is finished."""
        self._advance()
        self._sequence += 1
        heapq.heappush(self._jobs, (self._served + demand_ns, self._sequence, done))
        self._set_alarm()

    def _rate(self) -> float:
        return min(1.0, self._count / len(self._jobs)) if self._jobs else 1.0

    def _advance(self) -> None:
        now = self._env.now
        self._served += (now - self._since) * self._rate()
        self._since = now

    def _set_alarm(self) -> None:
        self._alarm += 1
        if self._jobs:
            left_ns = max(0, math.ceil((self._jobs[0][0] - self._served) / self._rate() - 1e-3))
            alarm = self._alarm
            self._env.timeout(left_ns).callbacks.append(lambda _: self._ring(alarm))
        else:
            self._served = 0.0  # keep the clock's numbers small, and so exact

    def _ring(self, alarm: int) -> None:
        if alarm != self._alarm:
            return
        self._advance()
        finished = []
        while self._jobs and self._jobs[0][0] <= self._served + 0.5:
            finished.append(heapq.heappop(self._jobs)[2])
        self._set_alarm()
        for done in finished:
            done(None)
