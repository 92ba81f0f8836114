"""The computation of workers' minibatches: each round alone at its end, or many rounds in one batched call.

A worker's computation between fetch and push depends on nothing else. So it may happen at any time before its push is
due; when a missing result is needed, all pending rounds are advanced in one batched call. Batched results are the same
bytes for the same seed; they are close to the sequential ones, but not bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch

from asgd_lab.backends import devices
from asgd_lab.backends.build import Worker, build_algorithm
from asgd_lab.backends.failing import minibatch_failed
from asgd_lab.backends.sim.probe import faster_batched
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.gates import Gate
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import Batch, Learner, Taken, Task


def check(scenario: Scenario, task: Task) -> None:
    """A `ScenarioError` if the scenario states batched numerics, and its algorithm or its task cannot have them."""
    if scenario.backend.numerics == "batched":
        chosen(scenario, task, devices.home(scenario), cuts_short(build_algorithm(scenario)))


def cuts_short(algorithm: Algorithm) -> bool:
    """Whether the algorithm may stop a worker in the midst of its minibatches."""
    return type(algorithm.gate).stops is not Gate.stops


def chosen(scenario: Scenario, task: Task, device: torch.device, stops: bool = False) -> Sequential | Batched | None:
    """The numerics that the scenario states, or the faster ones by a probe, and the probe's facts for summary.json.

    None for a task without parameters: its minibatches only take time.
    """
    mode = scenario.backend.numerics
    if not task.size:
        return None
    if mode == "sequential":
        return Sequential()
    if stops:  # a round of a batched call cannot be cut short
        because = "the algorithm may stop a worker in the midst of its minibatches"
        if mode == "batched":
            raise ScenarioError.at("backend.numerics", f"cannot be batched where {because}; use sequential or auto")
        return _sequential(because)
    if mode == "batched":
        return Batched(task.batch(device), {"numerics": {"mode": "batched"}})
    try:
        batch = task.batch(device)
    except ScenarioError as error:
        return _sequential(str(error))
    if batch.height == 1:
        return _sequential("a pass over replicas has room for one")
    is_faster, ratio = faster_batched(task, batch, scenario.workers, scenario.algorithm.n_fetch, device)
    facts = {"numerics": {"mode": "batched" if is_faster else "sequential", "probed_ratio": ratio}}
    return Batched(batch, facts) if is_faster else Sequential(facts)


def _sequential(because: str) -> Sequential:
    return Sequential({"numerics": {"mode": "sequential", "because": because}})


class Computation:
    """The minibatches of one round; they end at `ends_ns` from their common start."""

    __slots__ = ("_batched", "_found", "_worker", "ends_ns", "first", "learner")

    def __init__(self, worker: Worker, ends_ns: list[int], batched: Batched | None) -> None:
        self.learner: Learner = worker.learner
        self.first, self.ends_ns, self._worker = worker.replica.minibatches, ends_ns, worker.replica.worker
        self._batched = batched
        self._found: Taken | None = None

    def results(self, count: int) -> Taken:
        """Results of the first `count` minibatches (all, unless stopped); the parameters are those after them."""
        if self._batched is not None:
            if self._found is None:
                self._batched.advance()
            assert self._found is not None
            return self._found
        losses, errors = [], []
        minibatch = self.learner.minibatch
        step = self.first
        try:
            for step in range(self.first, self.first + count):
                loss, error = minibatch(step)
                losses.append(loss)
                errors.append(error)
        except Exception as raised:
            raise minibatch_failed(self._worker, step, raised) from raised
        return losses, errors

    def found(self, results: Taken) -> None:
        """Take the results from a batched call."""
        self._found = results

    def forget(self) -> None:
        """Discard the round of a crashed worker."""
        if self._batched is not None:
            self._batched.pending.pop(self, None)


class Sequential:
    """Computes each round alone."""

    def __init__(self, facts: dict[str, Any] | None = None) -> None:
        self.facts = facts or {}

    def begin(self, worker: Worker, ends_ns: list[int]) -> Computation:
        """A round has begun, with as many minibatches as have ends."""
        return Computation(worker, ends_ns, None)


class Batched:
    """Computes all pending rounds together."""

    def __init__(self, batch: Batch, facts: dict[str, Any]) -> None:
        self._batch, self.facts = batch, facts
        self.pending: dict[Computation, None] = {}  # in the order in which they began

    def begin(self, worker: Worker, ends_ns: list[int]) -> Computation:
        """A round has begun, with as many minibatches as have ends."""
        computation = Computation(worker, ends_ns, self)
        self.pending[computation] = None
        return computation

    def advance(self) -> None:
        """Compute all pending rounds."""
        rounds = list(self.pending)
        self.pending.clear()
        try:
            found = self._batch.advance([(each.learner, each.first, len(each.ends_ns)) for each in rounds])
        except Exception as raised:
            raise minibatch_failed(None, None, raised) from raised
        for each, results in zip(rounds, found, strict=True):
            each.found(results)
