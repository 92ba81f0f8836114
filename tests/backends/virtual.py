"""Virtual runs for tests: a scenario from few words, and a simulation whose tables stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from asgd_lab.backends.build import build_task
from asgd_lab.backends.outcome import Outcome
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.hardware.step_times import StepTimes
from asgd_lab.record.columns import EFFECTS, KINDS
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.tables import Recording
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.hardware import Compute
from asgd_lab.tasks import Task
from tests.backends.invariants import check_invariants

TIMING = {"name": "timing", "size_bytes": 0, "step_s": 1.0}


def scenario(
    task: dict[str, Any] = TIMING,
    algorithm: dict[str, Any] | None = None,
    workers: int = 1,
    budget: dict[str, Any] | None = None,
    hardware: dict[str, Any] | None = None,
    **more: Any,
) -> Scenario:
    """A scenario for the sim backend, whose minibatches take a second unless the hardware says otherwise.

    A fetch that costs the server nothing is one-sided, so that what theory calls the queue holds pushes only.
    """
    hardware = {"compute": {"step_s": 1.0}} if hardware is None else hardware
    server = hardware.get("server", {})
    hardware = hardware | {"server": {"one_sided_fetch": not server.get("fetch_s"), **server}}
    return Scenario.model_validate(
        {
            "name": "test",
            "task": task,
            "algorithm": algorithm or {"name": "asgd", "n_sync": 1},
            "workers": workers,
            "budget": budget or {"updates": 100},
            "hardware": hardware,
            "backend": "sim",
            **more,
        }
    )


class _Rows(list[tuple[Any, ...]]):
    add = list.append

    def flush(self) -> None:
        """Nothing waits."""


class Memory:
    """A run directory without a directory."""

    def __init__(self) -> None:
        self.recording = Recording.named("all")
        self.effects, self.minibatches, self.evals = _Rows(), _Rows(), _Rows()
        self.distances = None

    def begin(self) -> None:
        """There is nothing to write."""

    def save_params(self, params: Any, buffers: Any = None) -> None:
        """They are in the outcome."""


@dataclass
class Run:
    """A run that is over; times in nanoseconds, as the clock has them."""

    outcome: Outcome
    simulation: Simulation
    effects: pd.DataFrame

    def rows(self, kind: str) -> pd.DataFrame:
        """The effects of one kind, in order."""
        return self.effects[self.effects["kind"] == kind]

    @property
    def applies(self) -> pd.DataFrame:
        """The applications: of several servers in one order a row a push, which ends with its last slice."""
        rows, servers = self.rows("apply"), len(self.simulation.machine.queues)
        if servers == 1 or self.simulation.machine.apart:
            return rows
        ends = rows["end_s"].groupby(np.arange(len(rows)) // servers).max()
        return rows[rows["shard"] == 0].assign(end_s=ends.to_numpy())

    def summary(self) -> dict[str, Any]:
        """The run's numbers, as summary.json has them."""
        outcome = self.outcome
        return outcome.statistics.summary(
            backend="sim", seed=0, makespan_ns=outcome.makespan_ns, updates=outcome.updates, final={}, params_sha256=""
        )

    def utilisation(self) -> float:
        """The server's."""
        return cast(float, self.summary()["utilisation"]["server"])


Arrange = Callable[[Simulation], object]


def attempt(
    scenario: Scenario,
    task: Task | None = None,
    computes: Sequence[Compute] | None = None,
    arrange: Arrange | None = None,
) -> Run:
    """Run it, however it ends; `computes` gives each worker a device of its own, `arrange` meddles before the start."""
    memory = Memory()
    simulation = Simulation(scenario, cast(RunDirectory, memory), task or build_task(scenario))
    for worker, compute in zip(simulation.workers, computes or (), strict=computes is not None):
        worker.training._times = StepTimes(compute, scenario.seed, worker.number)
    if arrange is not None:
        arrange(simulation)
    outcome = simulation.run()
    effects = pd.DataFrame(memory.effects, columns=[name for name, _ in EFFECTS.columns])
    effects["kind"] = effects["kind"].map(dict(enumerate(KINDS)))
    return Run(outcome, simulation, effects)


def simulate(
    scenario: Scenario,
    task: Task | None = None,
    computes: Sequence[Compute] | None = None,
    arrange: Arrange | None = None,
) -> Run:
    """Run it to its end, and hold it against what every run must obey."""
    run = attempt(scenario, task, computes, arrange)
    assert run.outcome.status == "done", run.outcome.failure
    check_invariants(run)
    return run
