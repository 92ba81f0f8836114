"""The simulation: workers and server of the protocol over virtual time, with the real gradients or timing only.

The clock is an integer number of nanoseconds; simpy breaks ties by its sequence numbers, in order of scheduling; every
worker draws from random streams of its own; host time never enters. What takes no time happens at once, in the call
itself. A round with stated costs takes: latency, the server's service, latency and transfer and the client's cost for
the fetch; the minibatches; the client's cost, latency and transfer, the server's service, latency for the push.
"""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from asgd_lab.backends.build import (
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
from asgd_lab.backends.sim.worker import SimWorker
from asgd_lab.hardware.costs import Costs, nanoseconds
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
        self.keep_round = record.recording.keep_round
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
        self._served_ns = 0  # since the last push: what comes after the run's last one is none of its time
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
        except RuntimeError:
            if self.over.triggered or self.env.peek() != float("inf"):
                raise  # it came from what is simulated; an empty schedule is a deadlock
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

    def served(self, busy_ns: int) -> None:
        """The server has worked for so long."""
        self._served_ns += busy_ns

    def arrived(self) -> None:
        """After every push: evaluate, show progress, and end a run that the server has closed."""
        self.end_ns = self.env.now
        self.statistics.server_busy(self._served_ns)
        self._served_ns = 0
        server = self.server
        if self.evaluates_server and server.minibatches >= self.next_evaluation:
            self.evaluate_server()
        if server.closed:
            self.finish()
        self._pushes += 1
        if self.watch is not None and self._pushes % WATCH_EVERY == 0 and time.monotonic() > self._watched_s + WATCH_S:
            self._watched_s = time.monotonic()
            self.watch(
                Progress(self.env.now * 1e-9, server.version, server.minibatches, -1, error=server.training_error)
            )

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
        grants = self.server.close()
        self.count(grants)
        for worker in self.workers:
            worker.stop()
        self.over.succeed()
        self.deliver(grants)

    def evaluate_server(self) -> None:
        """The server's parameters, as of now."""
        assert self.server.parameters is not None
        self.next_evaluation = (self.server.minibatches // self.every + 1) * self.every
        self.evaluate("server", self.server.version, self.server.parameters.current)

    def evaluate(self, whose: str, version: int, params: Tensor) -> None:
        """One owner's parameters into the table, beside the minibatches that are in the server's by now."""
        minibatches = self.server.minibatches
        for split, metric, value in self.task.evaluate(params):
            self.record.evals.add((self.env.now, version, minibatches, whose, split, metric, value))
