"""Crashes and restarts: each worker is up for an exponential time, down for another, and comes back.

A crash loses every minibatch that is in no version by then: those of the round under way, a push on the link, and one
that waits in a server's queue, which is served all the same but not applied; what the server has collected is not lost.
The server hears of it `detect_s` later, at the latest when the worker comes back; until then it counts the worker in,
and may apply what had arrived. A worker comes back as a new incarnation that goes on with the data order from its last
applied push, its local optimizer new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgd_lab import streams
from asgd_lab.backends.sim.clock import Timer
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.scenario.running import Faults as Config

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
        for worker in range(self._sim.scenario.workers):
            self._up(worker)

    def _delay_ns(self, worker: int, mean_s: float) -> int:
        return max(1, nanoseconds(self._random[worker].exponential(mean_s)))

    def _up(self, worker: int) -> None:
        delay_ns = self._delay_ns(worker, self._config.mean_time_between_failures_s)
        Timer(self._sim.clock, delay_ns, lambda: self._crash(worker), background=True)

    def _crash(self, worker: int) -> None:
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
            mean_s = self._config.mean_time_between_failures_s
            sim.fail(f"no version in {self._in_vain} crashes: workers are up for {mean_s:g} s and a round takes longer")
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
        delay_ns = self._delay_ns(worker, self._config.mean_time_to_repair_s)
        Timer(sim.clock, delay_ns, lambda: self._restart(worker), background=True)

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
