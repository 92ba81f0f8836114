"""Observation of a simulation without influence on it: evaluations during the run, and its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from torch import Tensor

from asgd_lab.backends.failing import evaluation_failed
from asgd_lab.backends.outcome import Progress, Watch
from asgd_lab.backends.sim.clock import Clock
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.server import Server
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.running import Target
from asgd_lab.tasks import Task
from asgd_lab.tasks.base import Learner

WATCH_EVERY = 256  # pushes between two readings of the host's clock
WATCH_S = 0.2


class Observer:
    """The scenario's evaluations, and the caller's `watch`."""

    def __init__(self, scenario: Scenario, task: Task, record: RunDirectory, clock: Clock, server: Server,
                 buffers: Callable[[], Mapping[str, Tensor]]) -> None:  # fmt: skip
        """`buffers` returns the buffers to evaluate the server's parameters with."""
        evaluate = scenario.evaluate
        self._task, self._record, self._clock, self._server = task, record, clock, server
        self._buffers = buffers
        self.watch: Watch | None = None
        self._every = evaluate.interval(scenario.workers) if evaluate is not None else 0
        self._at_server = evaluate is not None and "server" in evaluate.parameters
        self._at_replicas = evaluate is not None and "replicas" in evaluate.parameters
        self._next = 0
        target = scenario.budget.target
        self._target = target if target is not None and not target.in_pushes else None
        self.is_met = False  # has an evaluation of the server reached the budget's target?
        self._next_of = [0.0] * scenario.workers
        self._watched_s = 0.0

    @property
    def any(self) -> bool:
        """Whether there is anything to do after a push."""
        return self.watch is not None or self._at_server

    def at_server(self, pushes: int) -> None:
        """After a push: evaluate the server if that is due, and report the progress."""
        server = self._server
        if self._at_server and server.minibatches >= self._next:
            self._next = (server.minibatches // self._every + 1) * self._every
            assert server.parameters is not None
            self._evaluate("server", server.version, server.parameters.current, self._buffers())
        if self.watch is not None and pushes % WATCH_EVERY == 0 and time.monotonic() > self._watched_s + WATCH_S:
            self._watched_s = time.monotonic()
            now_s, error = self._clock.now * 1e-9, server.training_error
            self.watch(Progress(now_s, server.version, server.minibatches, -1, error=error))

    def at_replica(self, replica: Replica, learner: Learner) -> None:
        """After a worker's minibatches: evaluate its replica if that is due."""
        worker = replica.worker
        if self._at_replicas and replica.minibatches >= self._next_of[worker] and replica.vectors is not None:
            every = self._every / len(self._next_of)
            self._next_of[worker] = (replica.minibatches // every + 1) * every
            whose, params = f"replica-{worker}", replica.vectors.params
            self._evaluate(whose, replica.version, params, learner.buffers(), of_replica=True)

    def _evaluate(
        self, whose: str, version: int, params: Tensor, buffers: Mapping[str, Tensor], of_replica: bool = False
    ) -> None:
        """Write an evaluation of one owner's parameters, with the server's minibatches so far."""
        try:
            found = self._task.evaluate(params, buffers, of_replica=of_replica)
        except Exception as error:
            raise evaluation_failed(error) from error
        for split, metric, value in found:
            row = (self._clock.now, version, self._server.minibatches, whose, split, metric, value)
            self._record.evals.add(row)
        if self._target is not None and not of_replica:
            self._compare(self._target, found)

    def _compare(self, target: Target, found: list[tuple[str, str, float]]) -> None:
        values = [value for split, metric, value in found if (split, metric) == (target.split, target.metric)]
        if not values:
            known = ", ".join(f"{split} {metric}" for split, metric, _ in found) or "none"
            message = f"has no metric of the evaluations, {target.split} {target.metric}; they have: {known}"
            raise ScenarioError.at("budget.target", message)
        self.is_met = self.is_met or target.is_met(values[0])
