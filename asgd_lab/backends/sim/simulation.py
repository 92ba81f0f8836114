"""The simulation: workers and servers of the protocol over virtual time, with the real gradients or timing only.

The clock is an integer number of nanoseconds; ties are broken in order of scheduling; every worker and every purpose
draws from a random stream of its own; host time never enters. What takes no time happens at once, in the call itself.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from typing import Any, NoReturn

from asgd_lab.backends import devices, room
from asgd_lab.backends.build import build_algorithm, build_task, initial_parameters
from asgd_lab.backends.failing import logged
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.backends.sim.accounts import where_time_goes
from asgd_lab.backends.sim.clock import Clock, StopSimulation, Timer
from asgd_lab.backends.sim.exchange import Slice
from asgd_lab.backends.sim.faults import Faults
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.fleet import Fleet, deadlock, starvation
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.numerics import chosen
from asgd_lab.backends.sim.observer import Observer
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.rows import Rows
from asgd_lab.backends.sim.shards import Shards
from asgd_lab.errors import RunFailed
from asgd_lab.hardware.costs import check_memory, nanoseconds
from asgd_lab.protocol.messages import DROPPED, Ack, Answer, Grant
from asgd_lab.protocol.replica import Replica
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task
from asgd_lab.tasks.base import Learner


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Run the scenario in virtual time, in this process."""
    return Simulation(scenario, record, build_task(scenario)).run(watch)


class Simulation:
    """One run and all that its workers share."""

    def __init__(self, scenario: Scenario, record: RunDirectory, task: Task) -> None:
        check_memory(scenario.hardware, task.size_bytes)
        room.check(scenario, task.size)
        self.scenario, self.record, self.task = scenario, record, task
        self.algorithm = build_algorithm(scenario)
        self.machine = Machine(Clock(), scenario, task.size_bytes, self.algorithm.depth)
        self.clock = self.machine.clock
        self._initial = initial_parameters(scenario, task)
        record.begin()
        self.rows = Rows(record, self.machine.costs, task.size_bytes)
        self.numerics = chosen(scenario, task, self._initial.device)
        self.fleet = Fleet(self, scenario, task, self.algorithm, self._initial)
        self.shards = Shards(scenario, task, self.algorithm, self._initial, self.fleet.buffers)
        self.server = self.shards.first
        self.statistics = Statistics(scenario.workers)
        self.fleet.make()
        self.workers, self.accounts = self.fleet.workers, self.fleet.accounts
        self.accepted = [0] * scenario.workers  # each worker's minibatches that the server has: a restart goes on there
        self.faults = Faults(self, scenario.faults, scenario.seed) if scenario.faults is not None else None
        self.end_ns = 0
        self.pushes = 0
        self._partly_applied = 0  # pushes that are in a version of the first of several independent servers, not of all
        self._observer = Observer(
            scenario, task, record, self.clock, self.shards, lambda: self.workers[0].learner.buffers()
        )
        self._observes = False  # is there anything to look at after a push?
        self._failure: str | None = None

    @property
    def version(self) -> int:
        """The server's newest."""
        return self.server.version

    # ------------------------------------------------------------------ the run

    def run(self, watch: Watch | None = None) -> Outcome:
        """Until the budget is used up; it fails if the workers come to wait for one another for ever."""
        self._observer.watch = watch
        self._observes = self._observer.any
        for worker in self.workers:
            self.shards.join(worker.number)
        self._observer.at_server(self.pushes)
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
                self.clock.run()
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
            facts=self._facts() | devices.facts(self.scenario),
            status="failed" if self._failure is not None else status,
            failure=self._failure,
        )
        with outcome.evaluating(self.record):
            outcome.evaluate(self.task, self.record, self.workers[0].learner.buffers(), self._initial.device)
        return outcome

    def _facts(self) -> dict[str, Any]:
        """Where each worker's time went, links and servers over time, faults; and the statistics' busy times."""
        self.fleet.count(self.statistics)
        queues = self.machine.queues
        self.statistics.server_busy(sum(queue.busy_ns for queue in queues) // len(queues))
        found = {"time": where_time_goes(self.accounts), "resources": self.machine.meters.summary()}
        found |= {} if self.numerics is None else self.numerics.facts
        found |= self.shards.facts()
        if self.faults is not None:
            found["faults"] = self.faults.facts(self.fleet.down_ns, self.end_ns)
        return found

    def deadlock(self) -> NoReturn:
        """Nothing will ever happen again: the run has failed."""
        self.fail(deadlock([worker for worker in self.workers if worker.alive], self.clock.now))

    def fail(self, failure: str) -> NoReturn:
        """The run ends here, for this reason."""
        self._failure = failure
        self._stop_workers(self.clock.now)
        raise StopSimulation(None)

    def _out_of_time(self) -> None:
        undetected = self.fleet.down & self.server.members
        if self.clock.stalled and not undetected and any(worker.alive for worker in self.workers):
            self.deadlock()
        self._finish([])

    def _finish(self, grants: Sequence[Answer]) -> None:
        """The run is over now, wherever its workers are: work that is not pushed is not counted."""
        now = self.clock.now
        grants = [*grants, *self.server.close()]
        answered = {grant.worker for grant in grants}
        waiting = [worker for worker in self.workers if worker.alive and worker.number not in answered]
        self._failure = starvation(waiting, now)
        for grant in grants:
            if type(grant) is Ack:
                push = self.fleet.push_of(grant)
                push.answer, push.released, push.done = grant, now, now  # nobody hears the answer any more
                self._applied(push, grant)
                if push.worker.alive:
                    self.rows.push(push)
        self._stop_workers(now)
        raise StopSimulation(None)

    def _stop_workers(self, now: int) -> None:
        self.end_ns = now
        self.machine.meters.sample()
        self.fleet.stop(now)

    # ------------------------------------------------------------------ what exchanges tell

    def push_served(self, push: Push) -> None:
        """A push has had its service: it is applied, or collected."""
        request = push.request
        if push.lost and (push.torn or not self._is_member(request.worker, request.incarnation)):
            return
        if self.algorithm.depth > 1:
            self.shards.take_from(request.worker, request.buffer)
        if self.record.distances is not None and self.server.parameters is not None:
            push.distance = self.server.parameters.moved(request.worker)
        self.server.now_ns = self.clock.now
        grants = self.server.on_push(request)
        self.accepted[request.worker] += request.steps
        if push.lost and self.faults is not None:  # given up at the crash, of which the server has not heard
            self.faults.lost_minibatches -= request.steps
        self._pushed(grants)

    def _pushed(self, grants: list[Answer]) -> None:
        self.pushes += 1
        server = self.server
        if self._observes:
            self._observer.at_server(self.pushes)
        if server.finished and not self._partly_applied:
            self._finish(grants)
        self.deliver(grants)

    def fetch_served(self, fetch: Fetch) -> None:
        """A fetch has had its service: it is granted, or held back."""
        if fetch.lost:
            return
        worker = fetch.worker
        if self.rows.any and not self.machine.one_sided:
            self.rows.grant(fetch)
        self.server.now_ns = self.clock.now
        grants = self.server.on_fetch(fetch.request)
        if len(grants) == 1 and grants[0].worker == worker.number:
            fetch.release(grants[0])  # type: ignore[arg-type]
        else:
            self.deliver(grants)

    def slice_served(self, slice: Slice) -> None:
        """One of several independent servers has served its slice of a push or a fetch."""
        exchange, index, now = slice.of, slice.index, self.clock.now
        server = self.shards.servers[index]
        if exchange.lost:
            return
        if type(exchange) is Push:
            request = exchange.request
            if self.algorithm.depth > 1:
                self.shards.take_from(request.worker, request.buffer)
            grants = server.hear(request if not index else request._replace(base=request.bases[index - 1]), now)
            self._slice_applied(exchange, slice, grants)
        elif type(exchange) is Fetch:
            self.rows.grant_slice(slice)
            grants = server.hear(exchange.request, now)
            if index:
                exchange.release_slice(index, grants[0])  # type: ignore[arg-type]
            else:
                self.deliver(grants)

    def _slice_applied(self, push: Push, slice: Slice, grants: list[Answer]) -> None:
        now, index = self.clock.now, slice.index
        for grant in grants:
            if type(grant) is Grant:
                self.deliver([grant])
                continue
            assert type(grant) is Ack
            self.shards.staleness[index][grant.staleness] += grant.version != DROPPED
            self.rows.apply_slice(slice, grant)
            if index == 0:
                push.answer = grant
                self._partly_applied += grant.version != DROPPED
        push.left -= 1
        if not push.left:
            self._partly_applied -= push.answer.version != DROPPED
            push.served, push.started = now, max(push.started, push.arrived)  # the last slice counts
            self._pushed([push.answer])

    def deliver(self, grants: list[Answer]) -> None:
        """Hand each grant to its worker's exchange."""
        for grant in grants:
            if type(grant) is Grant:
                worker = self.workers[grant.worker]
                if worker.alive and self.machine.independent:
                    worker.fetch.release_slice(0, grant)
                elif worker.alive:
                    worker.fetch.release(grant)
            else:
                assert type(grant) is Ack
                push = self.fleet.push_of(grant)
                self._applied(push, grant)
                if push.worker.alive:
                    push.release(grant)

    def _applied(self, push: Push, grant: Ack) -> None:
        """A push has ended: count it, and write the server's row."""
        if grant.version == DROPPED:
            self.statistics.dropped(grant.steps)
        else:
            self.statistics.applied(grant.staleness, grant.steps)
            if self.record.distances is not None:
                self.rows.distance(push, grant)
        if self.rows.any and not self.machine.independent:
            self.rows.apply(push, grant)

    def granted(self, replica: Replica) -> None:
        """A fetch was granted minibatches: point the replica at the version, which stays until the next grant."""
        if replica.vectors is not None:
            center = self.shards.center(replica.worker)
            assert center is not None
            replica.vectors.center = center

    def trained(self, replica: Replica, learner: Learner) -> None:
        """A worker has taken its minibatches."""
        self._observer.at_replica(replica, learner)

    # ------------------------------------------------------------------ membership

    def _is_member(self, worker: int, incarnation: int) -> bool:
        return worker in self.server.members and self.server.standing(worker)[0] == incarnation

    def leave(self, worker: int) -> None:
        """A worker is out: whoever waited for it is released."""
        self.shards.leave_others(worker)
        grants = self.server.on_leave(worker)
        if self.server.finished and not self._partly_applied:
            self._finish(grants)
        self.deliver(grants)

    def crash(self, worker: int) -> tuple[int, int]:
        """A worker is gone; its minibatches that are lost, and those of them in a round that was not over."""
        taken = self.fleet.crash(worker)
        return taken - self.accepted[worker], taken - self.workers[worker].replica.minibatches

    def detect(self, worker: int, incarnation: int) -> None:
        """The server hears that an incarnation is gone, unless it has."""
        if self._is_member(worker, incarnation):
            self.leave(worker)

    def restart(self, worker: int) -> None:
        """A crashed worker is back, as a new incarnation."""
        self.shards.join(worker)
        self.fleet.restart(worker, self.server.standing(worker), self.accepted[worker])
