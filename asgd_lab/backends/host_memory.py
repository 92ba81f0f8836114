"""The check that a run's vectors and workers fit into the memory of this machine; no torch is imported here."""

from __future__ import annotations

from asgd_lab.errors import ScenarioError
from asgd_lab.free_memory import free_memory_bytes
from asgd_lab.scenario import Scenario

_WORKER_BYTES = 10_000  # the least memory of a worker's objects, without vectors


def check(scenario: Scenario, size: int, vectors: int, depth: int) -> None:
    """A `ScenarioError`, with the sum, if there is no memory for so many vectors of `size` parameters.

    `depth`: the pushes that a worker may have in flight.
    """
    needed, available = 4 * size * vectors, free_memory_bytes()
    if not scenario.backend.execution.apart:
        needed += _WORKER_BYTES * (scenario.workers + scenario.workers * (depth - 1) // 10)
    if needed > available:
        message = (
            f"{scenario.workers:,} workers with {size:,} parameters need {needed / 1e9:,.1f} GB for their vectors, "
            f"and {available / 1e9:.1f} GB are free; use fewer"
        )
        raise ScenarioError.at("workers", message)
