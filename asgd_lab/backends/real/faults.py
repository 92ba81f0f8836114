"""The scenario's faults, inflicted on real processes on the run's own clock."""

from __future__ import annotations

import heapq
import itertools
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from time import monotonic_ns as now_ns
from typing import Protocol

from asgd_lab import streams
from asgd_lab.backends.real.plan import Plan
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.scenario.running import Kill, ServerDown, Slow


class Processes(Protocol):
    """The processes that faults are inflicted on."""

    def process_of(self, worker: int) -> BaseProcess | None:
        """The worker's process, or None while it has none."""

    def expect(self, worker: int, again_ns: int) -> None:
        """Note that a fault will kill the worker, which may be restarted then."""

    def take_down(self, lasts_ns: int) -> None:
        """Kill the server, and restart it not before then."""


class FaultSchedule:
    """The schedule of faults, which begins with the run's clock. A missed fault is inflicted late, never left out."""

    def __init__(self, processes: Processes, plan: Plan) -> None:
        scenario = plan.scenario
        self._processes, self._faults = processes, scenario.faults
        self._slower_words = plan.transport.words.slower
        self._random = [streams.generator(scenario.seed, worker, "faults") for worker in range(scenario.workers)]
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._slow: list[list[float]] = [[] for _ in self._random]

    def begin(self, start_ns: int) -> None:
        """Begin: the run's clock has started."""
        faults = self._faults
        if faults is None:
            return
        for each in faults.schedule:
            at = start_ns + nanoseconds(each.at_s)
            if isinstance(each, Kill):
                self._at(at, lambda each=each: self._kill(each.worker, nanoseconds(each.repair_s)))  # type: ignore[misc]
            elif isinstance(each, Slow):
                self._at(at, lambda each=each: self._slower(each.worker, each.factor))  # type: ignore[misc]
                until = start_ns + nanoseconds(each.until_s)
                self._at(until, lambda each=each: self._as_before(each.worker, each.factor))  # type: ignore[misc]
            elif isinstance(each, ServerDown):
                self._at(at, lambda each=each: self._processes.take_down(nanoseconds(each.for_s)))  # type: ignore[misc]
            else:
                self._at(at, lambda each=each: self._signal(each.worker, signal.SIGSTOP))  # type: ignore[misc]
                until = start_ns + nanoseconds(each.until_s)
                self._at(until, lambda each=each: self._signal(each.worker, signal.SIGCONT))  # type: ignore[misc]
        for worker in range(len(self._random)):
            self.up(worker)

    def up(self, worker: int) -> None:
        """A worker runs from now on; draw its next random crash, if the scenario has any."""
        faults = self._faults
        if faults is not None and faults.mean_time_between_failures_s is not None:
            self._at(now_ns() + self._drawn(worker, faults.mean_time_between_failures_s), lambda: self._crash(worker))

    @property
    def next_ns(self) -> int | None:
        """The time of the next fault; None without one."""
        return self._due[0][0] if self._due else None

    def act(self) -> None:
        """Inflict all faults that are due."""
        while self._due and self._due[0][0] <= now_ns():
            heapq.heappop(self._due)[2]()

    def _at(self, when_ns: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when_ns, next(self._count), act))

    def _drawn(self, worker: int, mean_s: float) -> int:
        return max(1, nanoseconds(self._random[worker].exponential(mean_s)))

    def _crash(self, worker: int) -> None:
        assert self._faults is not None
        mean_s = self._faults.mean_time_to_repair_s  # None where a dead worker is not restarted
        self._kill(worker, 0 if mean_s is None else self._drawn(worker, mean_s))

    def _kill(self, worker: int, repair_ns: int) -> None:
        process = self._process(worker)
        if process is not None:
            self._processes.expect(worker, now_ns() + repair_ns)
            process.kill()

    def _signal(self, worker: int, which: signal.Signals) -> None:
        process = self._process(worker)
        if process is not None and process.pid is not None:
            os.kill(process.pid, which)

    def _process(self, worker: int) -> BaseProcess | None:
        """The worker's process if it is alive and not reaped yet, so that its number is still its own."""
        process = self._processes.process_of(worker)
        return process if process is not None and process.is_alive() else None

    def _slower(self, worker: int, factor: float) -> None:
        self._slow[worker].append(factor)
        self._show(worker)

    def _as_before(self, worker: int, factor: float) -> None:
        self._slow[worker].remove(factor)
        self._show(worker)

    def _show(self, worker: int) -> None:
        product = 1.0
        for factor in self._slow[worker]:
            product *= factor
        self._slower_words[worker] = product
