"""The check of a scenario that models time alone: arithmetic on its keys, without torch, whose import takes seconds."""

from __future__ import annotations

from typing import Any

from asgd_lab import choices
from asgd_lab.backends import host_memory
from asgd_lab.hardware.costs import check_memory
from asgd_lab.scenario import Scenario


def suffices(scenario: Scenario) -> bool:
    """Whether arithmetic finds every fault: nothing is learned, and nothing else is built of a name or of a file."""
    algorithm, backend = scenario.algorithm, scenario.backend
    needs_torch = (
        scenario.task.learns
        or backend.device == "cuda"
        or scenario.warm_start is not None
        or scenario.hardware.compute.run is not None
        or bool(scenario.budget.keys_in_pushes)
        or algorithm.overlaps
        or algorithm.encoding is not None
        or not all(link.is_plain for link in algorithm.rule)
    )
    return not needs_torch and not choices.brought(scenario)


def check(scenario: Scenario) -> None:
    """A `ScenarioError` if the machine, or the stated device, has no memory for the scenario's workers."""
    task: Any = scenario.task  # one that learns nothing states its bytes
    host_memory.check(scenario, 0, 0, depth=1)
    check_memory(scenario.hardware, task.size_bytes)
