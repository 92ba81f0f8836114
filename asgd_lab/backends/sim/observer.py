"""Observation of a simulation without influence on it: evaluations during the run, and its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from torch import Tensor

from asgd_lab.backends.build import Facts, check_limit, end_facts
from asgd_lab.backends.failing import evaluation_failed
from asgd_lab.backends.outcome import Progress, Watch
from asgd_lab.backends.sim.clock import Clock
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.server import Server
from asgd_lab.protocol.window import Patience
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.running import Observed
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
        self._scenario, self._buffers = scenario, buffers
        self.watch: Watch | None = None
        self._every = evaluate.interval(scenario.workers) if evaluate is not None else 0
        self._at_server = evaluate is not None and "server" in evaluate.parameters
        self._at_replicas = evaluate is not None and "replicas" in evaluate.parameters
        self._next = 0
        target, stop = scenario.budget.target, scenario.budget.early_stop
        self._target = target if target is not None and not target.in_pushes else None
        self._stop = stop if stop is not None and not stop.in_pushes else None
        self.patience: Patience | None = None
        if self._stop is not None:
            self.patience = Patience(self._stop.patience, self._stop.min_delta, self._stop.mode == "max")
        self.ended_by: str | None = None  # the key of a limit that the server does not know, and that is reached
        self._next_of = [0.0] * scenario.workers
        self._watched_s = 0.0

    @property
    def evaluates(self) -> bool:
        """Whether the server is evaluated after a push."""
        return self._at_server

    def end_facts(self) -> Facts:
        """The limit that ended the run, and the early stop, for the summary."""
        return end_facts(self._scenario, self._server, self.ended_by, self.patience)

    def at_server(self, pushes: int) -> None:
        """After a push: evaluate the server if that is due, and tell the progress now and then."""
        server = self._server
        if self._at_server and server.minibatches >= self._next:
            self._next = (server.minibatches // self._every + 1) * self._every
            assert server.parameters is not None
            self._evaluate("server", server.version, server.parameters.current, self._buffers())
        if self.watch is not None and pushes % WATCH_EVERY == 0:
            self.tell()

    def tell(self) -> None:
        """Tell the caller's `watch` the progress, if some time has passed since the last."""
        if self.watch is not None and time.monotonic() > self._watched_s + WATCH_S:
            self._watched_s = time.monotonic()
            now_s, server = self._clock.now * 1e-9, self._server
            self.watch(Progress(now_s, server.version, server.minibatches, -1, error=server.training_error))

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
        if not of_replica:
            self._judge(found)

    def _judge(self, found: list[tuple[str, str, float]]) -> None:
        """Note a limit of the budget that these values of the server's parameters reach."""
        if self._target is not None and self._target.is_met(_value("target", self._target, found)):
            self.ended_by = self.ended_by or "target"
        if self._stop is not None and self.patience is not None:
            self.patience.observe(_value("early_stop", self._stop, found))
            if self.patience.reached:
                self.ended_by = self.ended_by or "early_stop"


def _value(key: str, limit: Observed, found: list[tuple[str, str, float]]) -> float:
    check_limit(key, limit, [(split, metric) for split, metric, _ in found])
    return next(value for split, metric, value in found if (split, metric) == (limit.split, limit.metric))
