"""Crashes and restarts: each worker is up for an exponential time, then down for an exponential time, and so on.

A crash loses every minibatch that is in no version by then: those of the current round, a push on the link, and a push
in a server's queue, which is served but not applied; a push that the server has collected is not lost. The server hears
of the crash `detect_s` later, at the latest when the worker restarts; until then the worker remains a member, and the
server may apply a push that had arrived. A restarted worker is a new incarnation, which continues the data order after
its last applied push, with a new local optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from asgd_lab import streams
from asgd_lab.backends.sim.clock import Clock, Timer
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.worker import SimWorker
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.scenario.running import Faults as Config
from asgd_lab.scenario.running import Kill, ServerDown, Stop

FUTILE = 10  # crashes per worker without a version in between, while nobody works: the run fails
HOPELESS = 1000  # crashes per worker without a version in between: the run fails in any case


class Victim(Protocol):
    """A run, as faults see it."""

    @property
    def machine(self) -> Machine:
        """The run's clock and servers."""

    @property
    def workers(self) -> Sequence[SimWorker]:
        """Each worker's newest incarnation."""

    @property
    def version(self) -> int:
        """The newest version."""

    def crash(self, worker: int) -> tuple[int, int]:
        """Let a worker crash; return its lost minibatches, and those of them in an unfinished round."""

    def detect(self, worker: int, incarnation: int) -> None:
        """Tell the server that an incarnation has crashed, unless it knows."""

    def restart(self, worker: int) -> None:
        """Restart a crashed worker as a new incarnation."""

    def deadlock(self) -> NoReturn:
        """Fail the run, because of a deadlock."""

    def fail(self, failure: str) -> NoReturn:
        """Fail the run, for this reason."""


class Faults:
    """All workers' crashes and restarts."""

    def __init__(self, sim: Victim, config: Config, seed: int) -> None:
        self._sim, self._config = sim, config
        self._clock: Clock = sim.machine.clock
        self._random = [streams.generator(seed, worker, "faults") for worker in range(len(sim.workers))]
        self.crashes = 0
        self.lost_minibatches = 0
        self.lost_under_way = 0  # those of them in an unfinished round
        self._version = 0  # the newest one, and since it was made:
        self._in_vain = 0  # crashes
        self._stalled = 0  # crashes while only background alarms were pending

    def start(self) -> None:
        """Start the random and the scheduled faults; all workers are up now."""
        clock, at = self._clock, nanoseconds
        for each in self._config.schedule:
            if isinstance(each, Kill):
                self._later(each.at_s, lambda each=each: self._crash(each.worker, at(each.repair_s)))  # type: ignore[misc]
            elif isinstance(each, Stop):
                self._later(each.at_s, lambda each=each: self._sim.workers[each.worker].pause(at(each.until_s)))  # type: ignore[misc]
            elif isinstance(each, ServerDown):
                self._later(each.at_s, lambda each=each: self._sim.machine.go_down(clock.now + at(each.for_s)))  # type: ignore[misc]
        for worker in range(len(self._sim.workers)):
            self._up(worker)

    def _later(self, at_s: float, then: Callable[[], object]) -> None:
        Timer(self._clock, nanoseconds(at_s), then, background=True)

    def _delay_ns(self, worker: int, mean_s: float) -> int:
        return max(1, nanoseconds(self._random[worker].exponential(mean_s)))

    def _up(self, worker: int) -> None:
        mean_s = self._config.mean_time_between_failures_s
        if mean_s is not None:
            delay_ns = self._delay_ns(worker, mean_s)
            incarnation = self._sim.workers[worker].replica.incarnation
            Timer(self._clock, delay_ns, lambda: self._crash_at_random(worker, incarnation), background=True)

    def _crash_at_random(self, worker: int, incarnation: int) -> None:
        if self._sim.workers[worker].replica.incarnation == incarnation:  # else it was killed meanwhile
            self._crash(worker, None)

    def _crash(self, worker: int, repair_ns: int | None) -> None:
        """Let a worker crash, and restart it after `repair_ns`, or after a random time."""
        sim, clock = self._sim, self._clock
        victim = sim.workers[worker]
        if not victim.alive:  # it has left
            return
        if sim.version != self._version:
            self._version, self._in_vain, self._stalled = sim.version, 0, 0
        self._in_vain += 1
        self._stalled += clock.stalled  # all workers wait: this crash may release some
        if self._stalled > FUTILE * len(sim.workers):
            sim.deadlock()
        if self._in_vain > HOPELESS * len(sim.workers):
            sim.fail(f"no version in {self._in_vain} crashes: workers are not up for long enough for a round")
        self.crashes += 1
        lost, under_way = sim.crash(worker)
        self.lost_minibatches += lost
        self.lost_under_way += under_way
        incarnation = victim.replica.incarnation
        detect_ns = nanoseconds(self._config.detect_s)
        if detect_ns:
            Timer(clock, detect_ns, lambda: sim.detect(worker, incarnation), background=True)
        else:
            sim.detect(worker, incarnation)
        if self._config.on_death == "stop":
            sim.fail(f"worker {worker} has died at {clock.now * 1e-9:.6g} s, and on_death is stop")
        if self._config.on_death == "continue":
            if not any(each.alive for each in sim.workers):
                sim.fail(f"no worker is left: worker {worker} has died at {clock.now * 1e-9:.6g} s")
            return
        if repair_ns is None:
            assert self._config.mean_time_to_repair_s is not None
            repair_ns = self._delay_ns(worker, self._config.mean_time_to_repair_s)
        Timer(clock, repair_ns, lambda: self._restart(worker), background=True)

    def _restart(self, worker: int) -> None:
        self._sim.detect(worker, self._sim.workers[worker].replica.incarnation)
        self._sim.restart(worker)
        self._up(worker)

    def facts(self, down_ns: int, end_ns: int) -> dict[str, Any]:
        """The facts on faults for summary.json; `down_ns` is the sum over the workers."""
        in_all = len(self._sim.workers) * end_ns
        return {
            "crashes": self.crashes,
            "lost_minibatches": self.lost_minibatches,
            "availability": 1 - down_ns / in_all if in_all else 1.0,
        }
