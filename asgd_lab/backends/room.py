"""Whether a run's vectors fit into the memory that this process may use, said before any of them is made."""

from __future__ import annotations

from asgd_lab.backends.build import build_algorithm
from asgd_lab.errors import ScenarioError
from asgd_lab.record.machine import free_memory_bytes
from asgd_lab.scenario import Scenario

_WORKER_BYTES = 10_000  # objects of a worker without any vector, at least


def check(scenario: Scenario, size: int) -> None:
    """Refuse a task of `size` parameters that the scenario's workers have no room for, with the sum.

    It counts what every run of the kind keeps; optimizers and data come on top.
    """
    workers, algorithm = scenario.workers, build_algorithm(scenario)
    servers = scenario.hardware.server.count if scenario.backend.name == "sim" else 1
    if size and servers > size:
        message = f"must be at most the {size:,} parameters, of which each server has a slice; got {servers:,}"
        raise ScenarioError.at("hardware.server.count", message)
    if algorithm.shared:
        vectors = workers + 1
    elif scenario.backend.name == "process":
        vectors = workers + workers * (1 + algorithm.depth) + 2 + 2 * algorithm.rule.states
    else:
        vectors = workers * (1 + algorithm.depth) + 2 + algorithm.rule.states
    needed, available = 4 * size * vectors, free_memory_bytes()
    if scenario.backend.name != "process":
        needed += _WORKER_BYTES * (workers + workers * (algorithm.depth - 1) // 10)
    if needed > available:
        message = (
            f"{workers:,} workers with {size:,} parameters need {needed / 1e9:,.1f} GB for their vectors, "
            f"and {available / 1e9:.1f} GB are free; use fewer"
        )
        raise ScenarioError.at("workers", message)
