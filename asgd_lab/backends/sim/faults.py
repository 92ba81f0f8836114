"""Crashes and restarts: each worker is up for an exponential time, down for another, and comes back.

A crash loses every minibatch that is in no version by then: those of the round under way, a push on the link, and one
that waits in a server's queue, which is served all the same but not applied; what the server has collected is not lost.
The server hears of it `detect_s` later, at the latest when the worker comes back; until then it counts the worker in,
and may apply what had arrived. A worker comes back as a new incarnation that goes on with the data order from its last
applied push, its local optimizer new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asgd_lab import streams
from asgd_lab.backends.sim.clock import Timer
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.scenario.running import Faults as Config
from asgd_lab.scenario.running import Kill, ServerDown, Stop

if TYPE_CHECKING:
    from asgd_lab.backends.sim.simulation import Simulation


FUTILE = 10  # crashes a worker without a version in between, after which nobody hopes for the next
HOPELESS = 1000  # crashes a worker without a version in between, whoever works


class Faults:
    """All workers' crashes and restarts."""

    def __init__(self, sim: Simulation, config: Config, seed: int) -> None:
        self._sim, self._config = sim, config
        self._random = [streams.generator(seed, worker, "faults") for worker in range(sim.scenario.workers)]
        self.crashes = 0
        self.lost_minibatches = 0
        self.lost_under_way = 0  # those of them that were in a round which was not over
        self._version = 0  # the newest one, and since it was made:
        self._in_vain = 0  # crashes
        self._stalled = 0  # those of them that found nothing but faults left to happen

    def start(self) -> None:
        """All are up now."""
        clock, at = self._sim.clock, nanoseconds
        for each in self._config.schedule:
            if isinstance(each, Kill):
                self._later(each.at_s, lambda each=each: self._crash(each.worker, at(each.repair_s)))  # type: ignore[misc]
            elif isinstance(each, Stop):
                self._later(each.at_s, lambda each=each: self._sim.workers[each.worker].stand_still(at(each.until_s)))  # type: ignore[misc]
            elif isinstance(each, ServerDown):
                self._later(each.at_s, lambda each=each: self._sim.machine.go_down(clock.now + at(each.for_s)))  # type: ignore[misc]
        for worker in range(self._sim.scenario.workers):
            self._up(worker)

    def _later(self, at_s: float, then: Callable[[], object]) -> None:
        Timer(self._sim.clock, nanoseconds(at_s), then, background=True)

    def _delay_ns(self, worker: int, mean_s: float) -> int:
        return max(1, nanoseconds(self._random[worker].exponential(mean_s)))

    def _up(self, worker: int) -> None:
        mean_s = self._config.mean_time_between_failures_s
        if mean_s is not None:
            delay_ns = self._delay_ns(worker, mean_s)
            incarnation = self._sim.workers[worker].replica.incarnation
            Timer(self._sim.clock, delay_ns, lambda: self._crash_at_random(worker, incarnation), background=True)

    def _crash_at_random(self, worker: int, incarnation: int) -> None:
        if self._sim.workers[worker].replica.incarnation == incarnation:  # else it was killed meanwhile
            self._crash(worker, None)

    def _crash(self, worker: int, repair_ns: int | None) -> None:
        """Repaired after `repair_ns`, or after a time that is drawn."""
        sim = self._sim
        victim = sim.workers[worker]
        if not victim.alive:  # it has left for good
            return
        if sim.server.version != self._version:
            self._version, self._in_vain, self._stalled = sim.server.version, 0, 0
        self._in_vain += 1
        self._stalled += sim.clock.stalled  # nobody works: will this crash release somebody?
        if self._stalled > FUTILE * len(sim.workers):
            sim.deadlock()
        if self._in_vain > HOPELESS * len(sim.workers):
            sim.fail(f"no version in {self._in_vain} crashes: workers are not up for long enough for a round")
        self.crashes += 1
        sim.down.add(worker)
        self.lost_minibatches += victim.minibatches - sim.accepted[worker]
        self.lost_under_way += victim.minibatches - victim.replica.minibatches
        victim.crash()
        incarnation = victim.replica.incarnation
        detect_ns = nanoseconds(self._config.detect_s)
        if detect_ns:
            Timer(sim.clock, detect_ns, lambda: self._detect(worker, incarnation), background=True)
        else:
            self._detect(worker, incarnation)
        if self._config.on_death == "stop":
            sim.fail(f"worker {worker} has died at {sim.clock.now * 1e-9:.6g} s, and on_death is stop")
        if self._config.on_death == "continue":
            if not any(each.alive for each in sim.workers):
                sim.fail(f"no worker is left: worker {worker} has died at {sim.clock.now * 1e-9:.6g} s")
            return
        if repair_ns is None:
            assert self._config.mean_time_to_repair_s is not None
            repair_ns = self._delay_ns(worker, self._config.mean_time_to_repair_s)
        Timer(sim.clock, repair_ns, lambda: self._restart(worker), background=True)

    def _detect(self, worker: int, incarnation: int) -> None:
        server = self._sim.server
        if worker in server.members and server.standing(worker)[0] == incarnation:
            self._sim.drop(worker)

    def _restart(self, worker: int) -> None:
        sim = self._sim
        self._detect(worker, sim.workers[worker].replica.incarnation)
        sim.down.discard(worker)
        sim.restart(worker)
        self._up(worker)
