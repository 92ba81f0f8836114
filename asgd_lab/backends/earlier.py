"""Records of earlier versions in which the same scenario meant another run: neither repeated nor continued.

A manifest has the number of its semantics; without one it is 1, in which the linear and cosine schedules fell during
the warm-up already, and frozen parameters were sent like trained ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asgd_lab import tasks
from asgd_lab.backends.inputs import untrusted
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import SEMANTICS
from asgd_lab.record.saved_model import saved
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task
from asgd_lab.tasks.network_task import NetworkTask


def check(run_dir: Path, manifest: Mapping[str, Any], scenario: Scenario) -> None:
    """A `ScenarioError` if the run in `run_dir` is of an earlier version, and would be another one now."""
    if _semantics(manifest) == SEMANTICS:
        return
    schedule = getattr(scenario.task, "schedule", None)
    if schedule is not None and schedule.warmup and schedule.name in ("linear", "cosine"):
        what = f"whose {schedule.name} schedule fell during its warm-up already; it cannot be repeated or continued"
        raise _refused(run_dir, what)
    if not scenario.task.learns or untrusted(scenario):  # untrusted code is refused by itself
        return
    try:
        recorded = len(saved(run_dir).params)
    except ScenarioError:  # it has saved none, or they are damaged, which is told elsewhere
        return
    data = tasks.load(scenario.task)
    task = tasks.build(scenario.task, scenario.seed, data, scenario.workers, checked=True)
    check_size(run_dir, manifest, task, recorded)


def inputs_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded inputs that can be compared: an earlier version digested data as it held them, in other types."""
    recorded = dict(manifest.get("inputs") or {})
    if _semantics(manifest) < SEMANTICS:
        recorded.pop("data", None)
    return recorded


def not_compared(manifest: Mapping[str, Any]) -> list[str]:
    """A line if the data's digest is not compared."""
    recorded = manifest.get("inputs") or {}
    is_left = "data" in recorded and "data" not in inputs_of(manifest)
    return ["the digest of its data was not compared: an earlier version held them in other types"] if is_left else []


def check_size(run_dir: Path, manifest: Mapping[str, Any], task: Task, recorded: int) -> None:
    """A `ScenarioError` if the recorded number of parameters is one of an earlier version, with frozen ones."""
    if _semantics(manifest) < SEMANTICS and recorded != task.size and isinstance(task, NetworkTask) and task.has_frozen:
        counts = f"its vector has {recorded:,} numbers, and {task.size:,} are sent now"
        what = f"which sent frozen parameters too: {counts}; it cannot be repeated, continued or exported"
        raise _refused(run_dir, what)


def _semantics(manifest: Mapping[str, Any]) -> int:
    return int(manifest.get("semantics", 1))


def _refused(run_dir: Path, what: str) -> ScenarioError:
    return ScenarioError(f"{run_dir}: was recorded by an earlier version, {what}; run its scenario anew")
