"""The simulation: workers and servers of the protocol over virtual time, with the real gradients or timing only.

The clock is an integer number of nanoseconds; ties are broken in order of scheduling; every worker and every purpose
draws from a random stream of its own; host time never enters. An event without duration happens at once, in the call.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from typing import Any, NoReturn

from asgd_lab.backends import devices, room
from asgd_lab.backends.build import build_algorithm, build_budget, build_server, build_task, initial_parameters
from asgd_lab.backends.failing import logged
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.backends.sim.accounts import where_time_goes
from asgd_lab.backends.sim.clock import Clock, StopSimulation, Timer
from asgd_lab.backends.sim.faults import Faults
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.fleet import Fleet, deadlock, starvation, without_collections
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.numerics import chosen, cuts_short
from asgd_lab.backends.sim.observer import WATCH_EVERY, Observer
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.push_outcomes import PushOutcomes
from asgd_lab.backends.sim.rows import Rows
from asgd_lab.backends.sim.world import Served
from asgd_lab.errors import ProtocolError, RunFailed
from asgd_lab.hardware.costs import check_memory, nanoseconds
from asgd_lab.protocol.effects import exchange_of
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.messages import KEPT, Ack, Answer, Grant, Join, Leave, Stop, Wake, Why
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
    """One run, with everything that its workers share."""

    @without_collections()
    def __init__(self, scenario: Scenario, record: RunDirectory, task: Task) -> None:
        check_memory(scenario.hardware, task.size_bytes)
        room.check(scenario, task.size)
        self.scenario, self.record, self.task = scenario, record, task
        self.algorithm = build_algorithm(scenario)
        self.stops = cuts_short(self.algorithm)
        self._wakes = type(self.algorithm.gate).wake_ns is not Gate.wake_ns
        parts, depth = self.algorithm.parts, self.algorithm.depth
        self.machine = Machine(Clock(), scenario, task.size_bytes, parts, depth)
        self.clock = self.machine.clock
        self._initial = initial_parameters(scenario, task)
        record.begin()
        self.rows = Rows(record)
        self.served = Served(self.push_served, self.fetch_served)
        self.numerics = chosen(scenario, task, self._initial.device, self.stops)
        self.fleet = Fleet(self, scenario, task, self.algorithm, self._initial)
        self._mailboxes = {worker: buffers[0] for worker, buffers in enumerate(self.fleet.buffers)}
        self.server = build_server(
            task, self.algorithm, build_budget(scenario), self._initial, self._mailboxes, workers=scenario.workers
        )
        self._writes_grants = self.rows.any and not self.machine.one_sided
        self.statistics = Statistics(scenario.workers)
        self._outcomes = PushOutcomes(self.statistics, self.rows, divided=parts > 0)
        self.fleet.make()
        self.workers, self.accounts = self.fleet.workers, self.fleet.accounts
        self.faults = Faults(self, scenario.faults, scenario.seed) if scenario.faults is not None else None
        self.end_ns = 0
        self.pushes = 0
        self._observer = Observer(
            scenario, task, record, self.clock, self.server, lambda: self.workers[0].learner.buffers()
        )
        self._observes = self._watches = False  # is there anything to do for the observer after a push?
        self._is_plain = False  # is each push answered at once, without any other effect?
        self._is_direct = not (self._wakes or parts)  # may the answer to a fetch be handed to it at once?
        self._wakes_at = -1  # the time of the pending alarm for the server
        self._failure: str | None = None

    @property
    def version(self) -> int:
        """The server's newest version."""
        return self.server.version

    # ------------------------------------------------------------------ the run

    def run(self, watch: Watch | None = None) -> Outcome:
        """Run until the budget is used up; RunFailed if the workers reach a deadlock."""
        self._observer.watch = watch
        self._watches = watch is not None
        self._observes = self._watches or self._observer.evaluates
        gate = self.algorithm.gate
        waits = gate.collects or gate.keeps or self._wakes
        looks = self._observer.evaluates or self.record.distances is not None
        takes_turns = self.algorithm.depth > 1 or self.algorithm.parts > 0
        self._is_plain = not (waits or looks or takes_turns or self.faults is not None)
        for worker in self.workers:
            self.server.hear(Join(worker.number), 0)
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
        gc.freeze()  # objects that live as long as the run need no further collections
        try:
            with self.clock.interruptible(), contextlib.suppress(StopSimulation):
                self.clock.run()
                self.deadlock()  # a run that ends in another way does not get here
        except (KeyboardInterrupt, RunFailed, ProtocolError) as error:
            status = "interrupted"
            self._failure = None if isinstance(error, KeyboardInterrupt) else logged(self.record.path, error)
            self._stop_workers(self.clock.now)
        finally:
            gc.unfreeze()
        self._failure = self._failure or self.server.failure
        ended = self._observer.end_facts() if status == "done" and self._failure is None else {}
        parameters = self.server.parameters
        outcome = Outcome(
            statistics=self.statistics,
            makespan_ns=self.end_ns,
            updates=self.server.version,
            params=None if parameters is None else parameters.current.cpu().numpy(),
            final={},
            facts=self._facts() | devices.facts(self.scenario) | ended,
            status="failed" if self._failure is not None else status,
            failure=self._failure,
        )
        with outcome.evaluating(self.record):
            outcome.evaluate(self.task, self.record, self.workers[0].learner.buffers(), self._initial.device)
        return outcome

    def _facts(self) -> dict[str, Any]:
        """The facts for summary.json: workers' time, links and servers over time, faults; sets the busy times too."""
        self.fleet.count(self.statistics)
        queues = self.machine.queues
        self.statistics.server_busy(sum(queue.busy_ns for queue in queues) // len(queues))
        found: dict[str, Any] = {"time": where_time_goes(self.accounts), "resources": self.machine.meters.summary()}
        found |= {} if self.numerics is None else self.numerics.facts
        if self.server.wasted:
            found["wasted_minibatches"] = self.server.wasted
        if self.faults is not None:
            found["faults"] = self.faults.facts(self.fleet.down_ns, self.end_ns)
        return found

    def deadlock(self) -> NoReturn:
        """Fail the run, because of a deadlock."""
        self.fail(deadlock([worker for worker in self.workers if worker.alive], self.clock.now))

    def fail(self, failure: str) -> NoReturn:
        """Fail the run, for this reason."""
        self._failure = failure
        self._stop_workers(self.clock.now)
        raise StopSimulation(None)

    def _out_of_time(self) -> None:
        undetected = self.fleet.down & self.server.members
        if self.clock.stalled and not undetected and any(worker.alive for worker in self.workers):
            self.deadlock()
        self._observer.ended_by = self._observer.ended_by or "seconds"
        self._finish([])

    def _finish(self, grants: Sequence[Answer]) -> None:
        """End the run now, at any point of its workers' programs: unpushed work is not counted."""
        now = self.clock.now
        grants = [*grants, *self.server.close()]
        answered = {grant.worker for grant in grants}
        waiting = [worker for worker in self.workers if worker.alive and worker.number not in answered]
        self._failure = starvation(waiting, now)
        for grant in grants:
            if type(grant) is Ack and grant.version != KEPT and not self._outcomes.was_kept(grant):
                push = self.fleet.push_of(grant)
                push.answer, push.released, push.done = grant, now, now  # the answer will not be heard any more
                self._outcomes.ended(push, grant)
                if push.worker.alive:
                    self.rows.push(push)
        self._stop_workers(now)
        raise StopSimulation(None)

    def _stop_workers(self, now: int) -> None:
        self.end_ns = now
        self.machine.meters.sample()
        self.fleet.stop(now)

    # ------------------------------------------------------------------ calls from exchanges

    def push_served(self, push: Push) -> None:
        """A push has been served: the server applies, holds, keeps or drops it."""
        request, server = push.request, self.server
        push.served = now = self.clock.now
        if self._is_plain:  # the same as below, in one piece
            server.now_ns = now  # and not `hear`: nothing is called so often
            answers = server.on_push(request)
            if len(answers) != 1 or server.finished:
                self._pushed(answers)
                return
            ack: Ack = answers[0]  # type: ignore[assignment]
            self._outcomes.ended(push, ack)
            if self._watches and not ack.version % WATCH_EVERY:
                self._observer.tell()
            push.release(ack)
            return
        if push.lost and (push.torn or not self._is_member(request.worker, request.incarnation)):
            return
        if self.algorithm.depth > 1:
            self._mailboxes[request.worker] = self.fleet.buffers[request.worker][request.buffer]
        if self.record.distances is not None and server.parameters is not None:
            push.distance = server.parameters.moved(request.worker)
        taken = server.taken(request.worker)
        answers = server.hear(request, now)
        if push.lost and self.faults is not None:  # lost at the crash, of which the server has not heard
            self.faults.lost_minibatches -= server.taken(request.worker) - taken
        self._pushed(answers)
        while push.behind:
            push.behind.pop(0).follow(push)

    def _pushed(self, answers: list[Answer]) -> None:
        self.pushes += 1
        if self._observes:
            self._observer.at_server(self.pushes)
            if self._observer.ended_by is not None and not self.server.closed:
                answers = [*answers, *self.server.close()]
        self._answered(answers)

    def _answered(self, answers: list[Answer]) -> None:
        """Carry the server's answers, unless the run is over."""
        if self.server.finished and not (self.machine.apart and self.fleet.completes(self.server)):
            self._finish(answers)
        self.deliver(answers)
        if self.server.wake_ns is not None and self.server.wake_ns != self._wakes_at:
            self._wakes_at = self.server.wake_ns
            Timer(self.clock, max(0, self._wakes_at - self.clock.now), self._wake)

    def _wake(self) -> None:
        """Wake the server, unless it does not want it any more."""
        now, wake_ns = self.clock.now, self.server.wake_ns
        if wake_ns is not None and wake_ns <= now:
            self._wakes_at = -1
            self._answered(self.server.hear(Wake(), now))

    def fetch_served(self, fetch: Fetch) -> None:
        """A fetch has been served: the server grants it, or holds it back."""
        server = self.server
        fetch.served = server.now_ns = self.clock.now
        if fetch.lost:
            return
        if self._writes_grants:
            self.rows.grant(fetch)
        request = fetch.request
        answers = server.on_fetch(request)
        # Worker and number: the one answer may be to a fetch of parameters alone that waited.
        if self._is_direct and len(answers) == 1 and answers[0][0] == request[0] and answers[0][2] == request[2]:
            fetch.release(answers[0])  # type: ignore[arg-type]
        else:
            self._answered(answers)

    def deliver(self, answers: list[Answer]) -> None:
        """Hand each answer to the waiting exchange of its worker."""
        for answer in answers:
            kind = type(answer)
            if kind is Ack:
                if self._outcomes.was_kept(answer):  # type: ignore[arg-type]
                    continue
                push = self.fleet.push_of(answer)  # type: ignore[arg-type]
                if answer.version == KEPT:  # type: ignore[union-attr]
                    self._outcomes.keep(push)
                else:
                    self._outcomes.ended(push, answer)  # type: ignore[arg-type]
                if push.worker.alive:
                    push.release(answer)  # type: ignore[arg-type]
                continue
            worker = self.workers[answer.worker]
            if not worker.alive:
                continue
            if kind is Stop:
                worker.send_stop(answer)  # type: ignore[arg-type]
            else:
                fetch: Any = worker.exchanges[exchange_of(True, answer.part)]  # type: ignore[union-attr]
                fetch.release(answer)

    def granted(self, replica: Replica, grant: Grant) -> None:
        """A fetch was granted parameters: point the replica at the version, which is pinned until the next grant."""
        if self.server.parameters is not None:
            replica.receive(grant.part, self.server.parameters.vector(grant.slot, grant.part))

    def trained(self, replica: Replica, learner: Learner) -> None:
        """A worker has taken its minibatches."""
        self._observer.at_replica(replica, learner)

    # ------------------------------------------------------------------ membership

    def _is_member(self, worker: int, incarnation: int) -> bool:
        return worker in self.server.members and self.server.standing(worker)[0] == incarnation

    def leave(self, leave: Leave) -> None:
        """A worker has left: workers that waited for it are released."""
        self._answered(self.server.hear(leave, self.clock.now))

    def crash(self, worker: int) -> tuple[int, int]:
        """Let a worker crash; return its lost minibatches, and those of them in an unfinished round."""
        taken = self.fleet.crash(worker)
        return taken - self.server.taken(worker), taken - self.workers[worker].replica.minibatches

    def detect(self, worker: int, incarnation: int) -> None:
        """Tell the server that an incarnation has crashed, unless it knows."""
        if self._is_member(worker, incarnation):
            self.leave(Leave(worker, incarnation, Why.DIED))

    def restart(self, worker: int) -> None:
        """Restart a crashed worker as a new incarnation."""
        self.server.hear(Join(worker), self.clock.now)
        self.fleet.restart(worker, self.server.standing(worker), self.server.taken(worker))
