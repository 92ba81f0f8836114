"""The simulation: workers and servers of the protocol over virtual time, with the real gradients or timing only.

The clock is an integer number of nanoseconds; ties are broken in order of scheduling; every worker and every purpose
draws from a random stream of its own; host time never enters. What takes no time happens at once, in the call itself.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from typing import Any

from simpy.core import StopSimulation

from asgd_lab.backends import devices, room
from asgd_lab.backends.build import build_algorithm, build_task, build_worker, initial_parameters
from asgd_lab.backends.failing import logged
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.backends.sim import report
from asgd_lab.backends.sim.accounts import Account
from asgd_lab.backends.sim.clock import Clock, Timer
from asgd_lab.backends.sim.exchange import Slice
from asgd_lab.backends.sim.faults import Faults
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.looking import Look
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.numerics import chosen
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.rows import Rows
from asgd_lab.backends.sim.shards import Shards
from asgd_lab.backends.sim.worker import SimWorker
from asgd_lab.errors import RunFailed
from asgd_lab.hardware.costs import check_memory, nanoseconds
from asgd_lab.hardware.step_times import StepTimes
from asgd_lab.protocol.grants import DROPPED, FetchGrant, Grant, PushGrant
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Run the scenario in virtual time, in this process."""
    return Simulation(scenario, record, build_task(scenario)).run(watch)


class Simulation:
    """One run and all that its workers share."""

    def __init__(self, scenario: Scenario, record: RunDirectory, task: Task) -> None:
        check_memory(scenario.hardware, task.size_bytes)
        room.check(scenario, task.size)
        self.scenario, self.record, self.task = scenario, record, task
        self.clock = Clock()
        self.algorithm = build_algorithm(scenario)
        self.depth = self.algorithm.depth
        self.machine = machine = Machine(self.clock, scenario, task.size_bytes, self.algorithm.depth)
        self.costs, self.network, self.queues = machine.costs, machine.network, machine.queues
        self.independent, self.one_sided = machine.independent, machine.one_sided
        self.processors, self.submit = machine.processors, machine.submit
        self._initial = initial_parameters(scenario, task)
        record.begin()
        self.rows = Rows(record, machine.costs, task.size_bytes)
        self._buffers = [[self._initial.clone() for _ in range(self.algorithm.depth)] for _ in range(scenario.workers)]
        self.shards = Shards(scenario, task, self.algorithm, self._initial, self._buffers)
        self.server = self.shards.first
        self.statistics = Statistics(scenario.workers)
        self.numerics = chosen(scenario, task, self._initial.device)
        self.accounts = [Account() for _ in range(scenario.workers)]
        stated_step_s = getattr(scenario.task, "step_s", None)
        self._times = StepTimes.all(scenario.hardware, scenario.seed, scenario.workers, stated_step_s, scenario.faults)
        self.workers = [self._worker(number) for number in range(scenario.workers)]
        self.down: set[int] = set()  # who has crashed and is not back
        self.accepted = [0] * scenario.workers  # each worker's minibatches that the server has: a restart goes on there
        self._former: dict[tuple[int, int], SimWorker] = {}  # incarnations that are gone, by worker and number
        self.faults = Faults(self, scenario.faults, scenario.seed) if scenario.faults is not None else None
        self.end_ns = 0
        self.pushes = 0
        self._partly_applied = 0  # pushes that are in a version of the first of several independent servers, not of all
        self.look = Look(self, None)
        self._looks = False  # is there anything to look at after a push?
        self._failure: str | None = None

    def _worker(self, number: int) -> SimWorker:
        buffers = self._buffers[number]
        entry = build_worker(self.task, self.algorithm, number, self._initial, buffers)
        return SimWorker(self, number, entry, self._times[number], self.accounts[number])

    # ------------------------------------------------------------------ the run

    def run(self, watch: Watch | None = None) -> Outcome:
        """Until the budget is used up; it fails if the workers come to wait for one another for ever."""
        self.look = Look(self, watch)
        self._looks = watch is not None or self.scenario.evaluate is not None
        for worker in self.workers:
            self.shards.join(worker.number)
        self.look.at_server()
        for worker in self.workers:
            worker.start()
        if self.faults is not None:
            self.faults.start()
        seconds = self.scenario.budget.seconds
        if seconds is not None:
            Timer(self.clock, nanoseconds(seconds), self._out_of_time, background=True)
        self.machine.meters.start()
        status: Any = "done"
        gc.freeze()  # what lives as long as the run need not be looked through again and again
        try:
            with self.clock.interruptible(), contextlib.suppress(StopSimulation):
                self.clock.go_on()
                self.deadlock()  # whatever ends a run does not come here
        except (KeyboardInterrupt, RunFailed) as error:
            status = "interrupted"
            self._failure = logged(self.record.path, error) if isinstance(error, RunFailed) else None
            self._stop_workers(self.clock.now)
        finally:
            gc.unfreeze()
        parameters = self.shards.current
        outcome = Outcome(
            statistics=self.statistics,
            makespan_ns=self.end_ns,
            updates=self.server.version,
            params=None if parameters is None else parameters.cpu().numpy(),
            final={},
            facts=report.facts(self) | devices.facts(self.scenario),
            status="failed" if self._failure is not None else status,
            failure=self._failure,
        )
        with outcome.evaluating(self.record):
            outcome.evaluate(self.task, self.record, self.workers[0].learner.buffers(), self._initial.device)
        return outcome

    def deadlock(self) -> None:
        """Nothing will ever happen again: the run has failed."""
        self.fail(report.deadlock([worker for worker in self.workers if worker.alive], self.clock.now))

    def fail(self, failure: str) -> None:
        """The run ends here, for this reason."""
        self._failure = failure
        self._stop_workers(self.clock.now)
        raise StopSimulation(None)

    def _out_of_time(self) -> None:
        undetected = self.down & self.server.members
        if self.clock.stalled and not undetected and any(worker.alive for worker in self.workers):
            self.deadlock()
        self._finish([])

    def _finish(self, grants: Sequence[Grant]) -> None:
        """The run is over now, wherever its workers are: work that is not pushed is not counted."""
        now = self.clock.now
        grants = [*grants, *self.server.close()]
        answered = {grant.worker for grant in grants}
        waiting = [worker for worker in self.workers if worker.alive and worker.number not in answered]
        self._failure = report.starvation(waiting, now)
        for grant in grants:
            if type(grant) is PushGrant:
                push = self._push_of(grant)
                push.grant, push.released, push.done = grant, now, now  # nobody hears the answer any more
                self._applied(push, grant)
                if push.worker.alive:
                    self.rows.push(push)
        self._stop_workers(now)
        raise StopSimulation(None)

    def _stop_workers(self, now: int) -> None:
        self.end_ns = now
        self.machine.meters.sample()
        for worker in self.workers:
            worker.stop(now)

    # ------------------------------------------------------------------ what exchanges tell

    def push_served(self, push: Push) -> None:
        """A push has had its service: it is applied, or collected."""
        arriving = push.arriving
        if push.lost and (push.torn or not self._is_member(arriving.worker, arriving.incarnation)):
            return
        if self.depth > 1:
            self.shards.take_from(arriving.worker, push.buffer)
        if self.record.distances is not None and self.server.parameters is not None:
            push.distance = self.server.parameters.moved(arriving.worker)
        grants = self.server.on_push(arriving)
        self.accepted[arriving.worker] += arriving.steps
        if push.lost and self.faults is not None:  # given up at the crash, of which the server has not heard
            self.faults.lost_minibatches -= arriving.steps
        self._pushed(grants)

    def _pushed(self, grants: list[Grant]) -> None:
        self.pushes += 1
        server = self.server
        if self._looks:
            self.look.at_server()
        if server.finished and not self._partly_applied:
            self._finish(grants)
        self.deliver(grants)

    def fetch_served(self, fetch: Fetch) -> None:
        """A fetch has had its service: it is granted, or held back."""
        if fetch.lost:
            return
        worker = fetch.worker
        if self.rows.any and not self.one_sided:
            self.rows.grant(fetch)
        grants = self.server.on_fetch(worker.number, fetch.ahead)
        if len(grants) == 1 and grants[0].worker == worker.number:
            fetch.release(grants[0])  # type: ignore[arg-type]
        else:
            self.deliver(grants)

    def slice_served(self, slice: Slice) -> None:
        """One of several independent servers has served its slice of a push or a fetch."""
        exchange, index = slice.of, slice.index
        server = self.shards.servers[index]
        if exchange.lost:
            return
        if type(exchange) is Push:
            arriving = exchange.arriving
            if self.algorithm.depth > 1:
                self.shards.take_from(arriving.worker, exchange.buffer)
            grants = server.on_push(arriving if not index else arriving._replace(base=arriving.bases[index - 1]))
            self._slice_applied(exchange, slice, grants)
        elif type(exchange) is Fetch:
            self.rows.grant_slice(slice)
            grants = server.on_fetch(exchange.worker.number, exchange.ahead)
            if index:
                exchange.release_slice(index, grants[0])  # type: ignore[arg-type]
            else:
                self.deliver(grants)

    def _slice_applied(self, push: Push, slice: Slice, grants: list[Grant]) -> None:
        now, index = self.clock.now, slice.index
        for grant in grants:
            if type(grant) is FetchGrant:
                self.deliver([grant])
                continue
            assert type(grant) is PushGrant
            self.shards.staleness[index][grant.staleness] += grant.version != DROPPED
            self.rows.apply_slice(slice, grant)
            if index == 0:
                push.grant = grant
                self._partly_applied += grant.version != DROPPED
        push.left -= 1
        if not push.left:
            self._partly_applied -= push.grant.version != DROPPED
            push.served, push.started = now, max(push.started, push.arrived)  # the last slice counts
            self._pushed([push.grant])

    def deliver(self, grants: list[Grant]) -> None:
        """Hand each grant to its worker's exchange."""
        for grant in grants:
            if type(grant) is FetchGrant:
                worker = self.workers[grant.worker]
                if worker.alive and self.independent:
                    worker.fetch.release_slice(0, grant)
                elif worker.alive:
                    worker.fetch.release(grant)
            else:
                assert type(grant) is PushGrant
                simple = self.depth == 1 and not self._former
                push = self.workers[grant.worker].pushes[0] if simple else self._push_of(grant)
                self._applied(push, grant)
                if push.worker.alive:
                    push.release(grant)

    def _push_of(self, grant: PushGrant) -> Push:
        former = self._former.pop((grant.worker, grant.incarnation), None) if self._former else None
        pushes = (former or self.workers[grant.worker]).pushes
        if len(pushes) > 1:
            for push in pushes:
                if push.flying and push.arriving.sequence == grant.sequence:
                    return push
        return pushes[0]

    def _applied(self, push: Push, grant: PushGrant) -> None:
        """A push has ended: count it, and write the server's row."""
        if grant.version == DROPPED:
            self.statistics.dropped(grant.steps)
        else:
            self.statistics.applied(grant.staleness, grant.steps)
            if self.record.distances is not None:
                self.rows.distance(push, grant)
        if self.rows.any and not self.independent:
            self.rows.apply(push, grant)

    def granted(self, worker: SimWorker) -> None:
        """A fetch was granted minibatches: point the replica at the version, which stays until the next grant."""
        if worker.replica.vectors is not None:
            center = self.shards.center(worker.number)
            assert center is not None
            worker.replica.vectors.center = center

    # ------------------------------------------------------------------ membership

    def _is_member(self, worker: int, incarnation: int) -> bool:
        return worker in self.server.members and self.server.standing(worker)[0] == incarnation

    def leave(self, worker: SimWorker) -> None:
        """A program has ended."""
        self.drop(worker.number)

    def drop(self, worker: int) -> None:
        """A worker is out: whoever waited for it is released."""
        self.shards.leave_others(worker)
        grants = self.server.on_leave(worker)
        if self.server.finished and not self._partly_applied:
            self._finish(grants)
        self.deliver(grants)

    def restart(self, number: int) -> None:
        """A crashed worker is back, as a new incarnation."""
        self.shards.join(number)
        former = self.workers[number]
        if former.pushes[0].collected:  # it is to be applied yet
            self._former[number, former.replica.incarnation] = former
        self.workers[number] = worker = self._worker(number)
        worker.replica.incarnation, worker.replica.sequence = self.server.standing(number)
        worker.replica.minibatches = self.accepted[number]
        worker.start()
