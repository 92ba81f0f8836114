"""All workers of a run: each one's newest incarnation, and earlier incarnations with a push held by the server."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence

from torch import Tensor

from asgd_lab.backends.build import build_worker
from asgd_lab.backends.sim.accounts import COMPUTE, DOWN, IDLE, WASTED, Account
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.worker import SimWorker
from asgd_lab.backends.sim.world import World
from asgd_lab.hardware.step_times import StepTimes
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.messages import Ack
from asgd_lab.protocol.server import Server
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """For making many objects that live long: the garbage collector would look at them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Fleet:
    """Makes, crashes and restarts workers."""

    def __init__(self, world: World, scenario: Scenario, task: Task, algorithm: Algorithm, initial: Tensor) -> None:
        self._world, self._task, self._algorithm, self._initial = world, task, algorithm, initial
        self.buffers = [[initial.clone() for _ in range(algorithm.depth)] for _ in range(scenario.workers)]
        self.accounts = [Account() for _ in range(scenario.workers)]
        stated_step_s = getattr(scenario.task, "step_s", None)
        self._times = StepTimes.all(scenario.hardware, scenario.seed, scenario.workers, stated_step_s, scenario.faults)
        self.workers: list[SimWorker] = []
        self.down: set[int] = set()  # workers that have crashed and are not restarted yet
        self._former: dict[tuple[int, int], SimWorker] = {}  # earlier incarnations, by worker and number

    def make(self) -> None:
        """Make the first incarnation of all workers."""
        self.workers += [self._worker(number) for number in range(len(self.accounts))]

    def _worker(self, number: int) -> SimWorker:
        entry = build_worker(self._task, self._algorithm, number, self._initial, self.buffers[number])
        depth = self._algorithm.depth
        return SimWorker(self._world, number, entry, self._times[number], self.accounts[number], depth)

    def push_of(self, grant: Ack) -> Push:
        """The push that an answer is for."""
        worker = self.workers[grant.worker]
        if not self._former and len(worker.exchanges) == 2:  # one fetch and one push
            return worker.push  # type: ignore[return-value]
        worker = self._former.get((grant.worker, grant.incarnation), worker)
        for push in worker.exchanges.values():
            if type(push) is Push and push.in_flight:
                request = push.request
                if request.number == grant.number and request.part == grant.part:
                    return push
        return worker.push  # type: ignore[return-value]

    def completes(self, server: Server) -> bool:
        """Whether a push is in a version of the first part, and has yet to come to another independent server."""
        members = [server.member(worker.number) for worker in self.workers if worker.alive]
        return any(min(member.numbers) < member.first_applied for member in members)

    def crash(self, number: int) -> int:
        """Let a worker crash; return its minibatches so far, those of an unfinished round included."""
        victim = self.workers[number]
        taken = victim.minibatches
        self.down.add(number)
        victim.crash()
        return taken

    def restart(self, number: int, standing: tuple[int, int], minibatches: int) -> None:
        """Restart a crashed worker as a new incarnation: `standing` has its number, and the worker's pushes so far."""
        self.down.discard(number)
        former = self.workers[number]
        if any(each.collected for each in former.exchanges.values() if type(each) is Push):
            # The server will still apply them.
            self._former[number, former.replica.incarnation] = former
        self.workers[number] = worker = self._worker(number)
        worker.client.begin(*standing, minibatches)
        worker.start()

    def stop(self, now: int) -> None:
        """End all workers, at any point of their programs."""
        for worker in self.workers:
            worker.stop(now, DOWN if worker.number in self.down else IDLE)

    def count(self, statistics: Statistics) -> None:
        """Count each worker's computing time, the wasted one included."""
        for worker, account in enumerate(self.accounts):
            statistics.worker_busy(worker, account.spent_ns[COMPUTE] + account.spent_ns[WASTED])

    @property
    def down_ns(self) -> int:
        """The sum of all workers' down times."""
        return sum(account.spent_ns[DOWN] for account in self.accounts)


def deadlock(waiting: Sequence[SimWorker], now: int) -> str:
    """A line with the waiting workers, their stages and times."""
    whats = sorted({"nothing" if each.awaits is None else each.awaits.waits_for for each in waiting})
    return f"deadlock at {now * 1e-9:.6g} s: workers {_listed(waiting)} wait for {' or '.join(whats) or 'nothing'}"


def starvation(waiting: Sequence[SimWorker], now: int) -> str | None:
    """A line if the run has ended while a served request was never answered, else None."""
    starved = [worker for worker in waiting if worker.awaits is not None and worker.awaits.collected]
    if not starved:
        return None
    return f"starvation until {now * 1e-9:.6g} s: workers {_listed(starved)} wait for a grant that never comes"


def _listed(workers: Sequence[SimWorker]) -> str:
    return (
        ", ".join(map(str, [worker.number for worker in workers][:20])) + (", ..." if len(workers) > 20 else "")
        or "none"
    )
