"""All workers of a run: each one's newest incarnation, and those before it whose push the server has and keeps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from asgd_lab.backends.build import build_worker
from asgd_lab.backends.sim.accounts import COMPUTE, DOWN, IDLE, WASTED, Account
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.worker import SimWorker
from asgd_lab.backends.sim.world import World
from asgd_lab.hardware.step_times import StepTimes
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.messages import Ack
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task


class Fleet:
    """Makes them, lets them crash, and makes them anew."""

    def __init__(self, world: World, scenario: Scenario, task: Task, algorithm: Algorithm, initial: Tensor) -> None:
        self._world, self._task, self._algorithm, self._initial = world, task, algorithm, initial
        self.buffers = [[initial.clone() for _ in range(algorithm.depth)] for _ in range(scenario.workers)]
        self.accounts = [Account() for _ in range(scenario.workers)]
        stated_step_s = getattr(scenario.task, "step_s", None)
        self._times = StepTimes.all(scenario.hardware, scenario.seed, scenario.workers, stated_step_s, scenario.faults)
        self.workers: list[SimWorker] = []
        self.down: set[int] = set()  # who has crashed and is not back
        self._former: dict[tuple[int, int], SimWorker] = {}  # incarnations that are gone, by worker and number

    def make(self) -> None:
        """All of them, of their first incarnation."""
        self.workers += [self._worker(number) for number in range(len(self.accounts))]

    def _worker(self, number: int) -> SimWorker:
        entry = build_worker(self._task, self._algorithm, number, self._initial, self.buffers[number])
        depth = self._algorithm.depth
        return SimWorker(self._world, number, entry, self._times[number], self.accounts[number], depth)

    def push_of(self, grant: Ack) -> Push:
        """The push that a grant is for."""
        if not self._former and self._algorithm.depth == 1:
            return self.workers[grant.worker].pushes[0]
        former = self._former.pop((grant.worker, grant.incarnation), None)
        pushes = (former or self.workers[grant.worker]).pushes
        for push in pushes if len(pushes) > 1 else ():
            if push.in_flight and push.request.number == grant.number:
                return push
        return pushes[0]

    def crash(self, number: int) -> int:
        """A worker is gone; the minibatches that it had taken, those of a round that was not over included."""
        victim = self.workers[number]
        taken = victim.minibatches
        self.down.add(number)
        victim.crash()
        return taken

    def restart(self, number: int, standing: tuple[int, int], minibatches: int) -> None:
        """A crashed worker is back as a new incarnation: `standing` has its number, and how many pushes it made."""
        self.down.discard(number)
        former = self.workers[number]
        if former.pushes[0].collected:  # it is to be applied yet
            self._former[number, former.replica.incarnation] = former
        self.workers[number] = worker = self._worker(number)
        worker.client.begin(*standing, minibatches)
        worker.start()

    def stop(self, now: int) -> None:
        """The run is over, wherever they are."""
        for worker in self.workers:
            worker.stop(now, DOWN if worker.number in self.down else IDLE)

    def count(self, statistics: Statistics) -> None:
        """How long each has computed, in vain or not."""
        for worker, account in enumerate(self.accounts):
            statistics.worker_busy(worker, account.spent_ns[COMPUTE] + account.spent_ns[WASTED])

    @property
    def down_ns(self) -> int:
        """The sum over all of how long they were down."""
        return sum(account.spent_ns[DOWN] for account in self.accounts)


def deadlock(waiting: Sequence[SimWorker], now: int) -> str:
    """One line: who waits, for what, since when."""
    whats = sorted({"nothing" if each.awaits is None else each.awaits.waits_for for each in waiting})
    return f"deadlock at {now * 1e-9:.6g} s: workers {_listed(waiting)} wait for {' or '.join(whats) or 'nothing'}"


def starvation(waiting: Sequence[SimWorker], now: int) -> str | None:
    """One line, if the run has come to its end past somebody whose request the server has had and not answered."""
    starved = [worker for worker in waiting if worker.awaits is not None and worker.awaits.collected]
    if not starved:
        return None
    return f"starvation until {now * 1e-9:.6g} s: workers {_listed(starved)} wait for a grant that never comes"


def _listed(workers: Sequence[SimWorker]) -> str:
    return (
        ", ".join(map(str, [worker.number for worker in workers][:20])) + (", ..." if len(workers) > 20 else "")
        or "none"
    )
