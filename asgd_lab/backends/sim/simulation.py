"""The simulation: workers and server of the protocol over virtual time, with the real gradients or timing only.

The clock is an integer number of nanoseconds; simpy breaks ties by its sequence numbers, in order of scheduling; every
worker draws from random streams of its own; host time never enters. What takes no time happens at once, in the call
itself. A round with stated costs takes: latency, the server's service, latency and transfer and the client's cost for
the fetch; the minibatches; the client's cost, latency and transfer, the server's service, latency for the push.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import simpy

from asgd_lab.backends.build import (
    Worker,
    build_algorithm,
    build_budget,
    build_server,
    build_task,
    build_worker,
    initial_parameters,
)
from asgd_lab.backends.outcome import Outcome, Progress, Watch
from asgd_lab.backends.sim.clock import Clock
from asgd_lab.backends.sim.cores import Cores
from asgd_lab.backends.sim.queue import ServerQueue
from asgd_lab.errors import ProtocolError
from asgd_lab.hardware.costs import Costs, StepTimes, nanoseconds
from asgd_lab.protocol.effects import Fetch, Push, Train
from asgd_lab.protocol.server import DROPPED, FetchGrant, Grant, PushGrant
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.record.tables import KINDS
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task

FETCH, TRAIN, PUSH, APPLY, GRANT = (KINDS.index(kind) for kind in ("fetch", "train", "push", "apply", "grant"))
WATCH_EVERY = 256  # pushes between two looks at the host's clock, for the progress display only
WATCH_S = 0.2


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Run the scenario in virtual time, in this process."""
    return Simulation(scenario, record, build_task(scenario)).run(watch)


class Simulation:
    """One run and all that its workers share."""

    def __init__(self, scenario: Scenario, record: RunDirectory, task: Task) -> None:
        self.scenario, self.record, self.task = scenario, record, task
        self.env = Clock()
        hardware = scenario.hardware
        self.costs = Costs.of(hardware, task.size_bytes)
        self.cores = Cores(self.env, hardware.cores) if hardware.cores is not None else None
        self.queue = ServerQueue(self.env, self.cores)
        self.training_cores = self.cores if scenario.backend.device == "cpu" else None
        self.algorithm = build_algorithm(scenario)
        initial = initial_parameters(scenario, task)
        mailboxes = {worker: initial.clone() for worker in range(scenario.workers)}
        self.server = build_server(task, self.algorithm, build_budget(scenario), initial, mailboxes)
        self.statistics = Statistics(scenario.workers)
        self.workers = [
            SimWorker(self, build_worker(task, self.algorithm, worker, initial, mailbox))
            for worker, mailbox in mailboxes.items()
        ]
        self.over = self.env.event()
        self.end_ns = 0
        evaluate = scenario.evaluate
        self.every = evaluate.every_minibatches if evaluate is not None else 0
        self.evaluates_server = evaluate is not None and "server" in evaluate.parameters
        self.evaluates_replicas = evaluate is not None and "replicas" in evaluate.parameters
        self.next_evaluation = 0
        self.watch: Watch | None = None
        self._pushes = 0
        self._watched_s = 0.0

    def run(self, watch: Watch | None = None) -> Outcome:
        """Until the budget is used up; RunFailed if the workers come to wait for one another for ever."""
        self.watch = watch
        for worker in self.workers:
            self.server.on_join(worker.number)
        seconds = self.scenario.budget.seconds
        if seconds is not None:
            self.env.timeout(nanoseconds(seconds)).callbacks.append(lambda _: self.finish())
        if self.evaluates_server:
            self.evaluate_server()
        for worker in self.workers:
            worker.resume()
        status: Any = "done"
        failure = None
        try:
            self.env.run(until=self.over)
        except KeyboardInterrupt:
            status = "interrupted"
        except RuntimeError as error:
            if "until" not in str(error):  # simpy's word for an empty schedule
                raise
            waiting = sorted(self.server.members)
            status, failure = "failed", f"deadlock: workers {waiting} wait for a grant that never comes"
        parameters = self.server.parameters
        outcome = Outcome(
            statistics=self.statistics, makespan_ns=self.end_ns, updates=self.server.version,
            params=None if parameters is None else parameters.current.numpy(),
            final={}, facts={}, status=status, failure=failure,
        )  # fmt: skip
        if outcome.params is not None and status != "failed":
            outcome.evaluate(self.task, self.record)
        return outcome

    def after(self, delay_ns: int, then: Callable[[], None]) -> None:
        """Call `then` in `delay_ns`, at once if that is 0."""
        if delay_ns:
            self.env.timeout(delay_ns).callbacks.append(lambda _: then())
        else:
            then()

    def deliver(self, grants: list[Grant]) -> None:
        """Hand each grant to its worker."""
        for grant in grants:
            if isinstance(grant, FetchGrant):
                self.workers[grant.worker].granted(grant)
            else:
                self.workers[grant.worker].pushed(grant)

    def count(self, grants: list[Grant]) -> None:
        """Every push that ended, in the run's statistics."""
        for grant in grants:
            if type(grant) is PushGrant:
                if grant.version == DROPPED:
                    self.statistics.dropped(grant.steps)
                else:
                    self.statistics.applied(grant.staleness, grant.steps)

    def arrived(self) -> None:
        """After every push: evaluate, show progress, and end a run that the server has closed."""
        self.end_ns = self.env.now
        server = self.server
        if self.evaluates_server and server.minibatches >= self.next_evaluation:
            self.evaluate_server()
        if server.closed:
            self.finish()
        self._pushes += 1
        if self.watch is not None and self._pushes % WATCH_EVERY == 0 and time.monotonic() > self._watched_s + WATCH_S:
            self._watched_s = time.monotonic()
            self.watch(Progress(self.env.now * 1e-9, server.version, server.minibatches, -1, server.training_error))

    def leave(self, worker: int) -> None:
        """A program has ended."""
        grants = self.server.on_leave(worker)
        self.count(grants)
        self.deliver(grants)
        if not self.server.members and not self.over.triggered:
            self.over.succeed()

    def finish(self) -> None:
        """The run is over now, wherever its workers are: work that is not pushed is not counted."""
        if self.over.triggered:
            return
        self.end_ns = self.env.now
        self.count(self.server.close())
        for worker in self.workers:
            worker.stop()
        self.over.succeed()

    def evaluate_server(self) -> None:
        """The server's parameters, as of now."""
        assert self.server.parameters is not None
        self.next_evaluation = (self.server.minibatches // self.every + 1) * self.every
        self.evaluate("server", self.server.version, self.server.minibatches, self.server.parameters.current)

    def evaluate(self, whose: str, version: int, minibatches: int, params: Any) -> None:
        """One owner's parameters into the table."""
        for split, metric, value in self.task.evaluate(params):
            self.record.evals.add((self.env.now, version, minibatches, whose, split, metric, value))


class SimWorker:
    """One worker in virtual time: where it is in its round, and since when."""

    __slots__ = (
        "_begun", "_ends", "_minibatch", "_next_evaluation", "_program", "_training", "_wait", "number",
        "replica", "sim", "times",
    )  # fmt: skip

    def __init__(self, sim: Simulation, entry: Worker) -> None:
        scenario = sim.scenario
        self.sim, self.replica = sim, entry.replica
        self.number = entry.replica.worker
        self._program, self._minibatch = entry.program, entry.learner.minibatch
        self.times = StepTimes(
            scenario.hardware.compute, scenario.seed, self.number, getattr(scenario.task, "step_s", None)
        )
        self._begun = self._wait = 0
        self._ends: list[int] = []
        self._training = False
        self._next_evaluation = 0.0

    def resume(self) -> None:
        """Go on to the program's next effect and begin it."""
        effect = next(self._program, None)
        self._begun = self.sim.env.now
        if type(effect) is Train:
            self._train()
        elif type(effect) is Push:
            self._compute(self.sim.costs.client_push_ns, self._send)
        elif type(effect) is Fetch:
            self.sim.after(self.sim.costs.latency_ns, self._ask)
        elif effect is None:
            self.sim.leave(self.number)
        else:
            raise ProtocolError(f"the sim backend does not interpret {type(effect).__name__}")

    def stop(self) -> None:
        """The run is over: count what this worker was computing."""
        if self._training:
            self.sim.statistics.worker_busy(self.number, self.sim.env.now - self._begun)

    # ------------------------------------------------------------------ fetch

    def _ask(self) -> None:
        self._wait = self.sim.env.now
        self.sim.queue.submit(self.sim.costs.server_fetch_ns, self._asked)

    def _asked(self, start: int, waited: int) -> None:
        sim = self.sim
        if sim.costs.server_fetch_ns:
            now = sim.env.now
            sim.statistics.server_busy(now - start)
            round = self.replica.sequence + 1
            if sim.record.recording.keep_round(round):
                sim.record.effects.add((-1, round, GRANT, start, now, waited, -1, -1, 0, sim.task.size_bytes))
        sim.deliver(sim.server.on_fetch(self.number))

    def granted(self, grant: FetchGrant) -> None:
        """The server's answer leaves it now."""
        sim, costs = self.sim, self.sim.costs
        self._wait = sim.env.now - self._wait - costs.server_fetch_ns
        if sim.server.parameters is not None and grant.steps:
            assert self.replica.vectors is not None
            self.replica.vectors.center = sim.server.parameters.vector(sim.server.parameters.pinned(self.number))
        way_ns = costs.latency_ns + (costs.transfer_ns if grant.steps else 0)
        client_ns = costs.client_fetch_ns if grant.steps else 0
        sim.after(way_ns, lambda: self._compute(client_ns, lambda: self._fetched(grant)))

    def _fetched(self, grant: FetchGrant) -> None:
        self.replica.grant(grant.version, grant.steps)
        size = self.sim.task.size_bytes if grant.steps else 0
        self._note(FETCH, self._wait, grant.version, -1, grant.steps, size)
        self.resume()

    # ------------------------------------------------------------------ train

    def _train(self) -> None:
        sim, steps = self.sim, self.replica.steps
        self._training = True
        if sim.task.size:
            self._ends = self.times.ends_ns(steps)
            total = self._ends[-1]
        else:
            total = self.times.total_ns(steps)
        if sim.training_cores is not None:
            sim.training_cores.work(total, self._trained)
        else:
            sim.env.timeout(total).callbacks.append(self._trained_event)

    def _trained_event(self, _: simpy.Event) -> None:
        self._trained()

    def _trained(self) -> None:
        sim, replica = self.sim, self.replica
        self._training = False
        now = sim.env.now
        sim.statistics.worker_busy(self.number, now - self._begun)
        loss_sum = error_sum = 0.0
        if sim.task.size:
            # What a worker computes depends on nothing that happened since its fetch: it may be computed only now.
            stretch = (now - self._begun) / self._ends[-1]
            keep = sim.record.recording.keep_round(replica.sequence + 1)
            rows = []
            for step, end in enumerate(self._ends, replica.minibatches):
                loss, error = self._minibatch(step)
                loss_sum += loss
                error_sum += error
                rows.append((self.number, step, self._begun + round(end * stretch), loss, error))
            if keep:
                sim.record.minibatches.extend(rows)
        replica.trained(loss_sum, error_sum)
        self._note(TRAIN, 0, replica.version, -1, replica.steps, 0)
        if sim.evaluates_replicas and replica.minibatches >= self._next_evaluation and replica.vectors is not None:
            every = sim.every / sim.scenario.workers
            self._next_evaluation = (replica.minibatches // every + 1) * every
            sim.evaluate(f"replica-{self.number}", replica.version, replica.minibatches, replica.vectors.params)
        self.resume()

    # ------------------------------------------------------------------ push

    def _send(self) -> None:
        self.sim.after(self.sim.costs.latency_ns + self.sim.costs.transfer_ns, self._deliver)

    def _deliver(self) -> None:
        self._wait = self.sim.env.now
        self.sim.queue.submit(self.sim.costs.server_push_ns, self._served)

    def _served(self, start: int, waited: int) -> None:
        sim, replica = self.sim, self.replica
        now = sim.env.now
        grants = sim.server.on_push(replica.arriving())
        sim.statistics.server_busy(now - start)
        if sim.record.recording.keep_round(replica.sequence):
            own = next((g for g in grants if type(g) is PushGrant and g.worker == self.number), None)
            version, staleness, steps = (-1, -1, 0) if own is None else (own.version, own.staleness, own.steps)
            row = (-1, replica.sequence, APPLY, start, now, waited, version, staleness, steps, sim.task.size_bytes)
            sim.record.effects.add(row)
        sim.count(grants)
        sim.arrived()
        if not sim.over.triggered:
            sim.deliver(grants)

    def pushed(self, grant: PushGrant) -> None:
        """The server has let go of the update."""
        self._wait = self.sim.env.now - self._wait - self.sim.costs.server_push_ns
        self.sim.after(self.sim.costs.latency_ns, lambda: self._pushed(grant))

    def _pushed(self, grant: PushGrant) -> None:
        self._note(PUSH, self._wait, grant.version, grant.staleness, grant.steps, self.sim.task.size_bytes)
        self.resume()

    # ------------------------------------------------------------------ both

    def _compute(self, demand_ns: int, then: Callable[[], None]) -> None:
        """Software on the worker's host: on a core of the node where those are shared."""
        if demand_ns and self.sim.cores is not None:
            self.sim.cores.work(demand_ns, then)
        else:
            self.sim.after(demand_ns, then)

    def _note(self, kind: int, wait: int, version: int, staleness: int, steps: int, size: int) -> None:
        # A fetch opens the round that the next push closes.
        round = self.replica.sequence if kind == PUSH else self.replica.sequence + 1
        record = self.sim.record
        if record.recording.keep_round(round):
            now = self.sim.env.now
            record.effects.add((self.number, round, kind, self._begun, now, wait, version, staleness, steps, size))
