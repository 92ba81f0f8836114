"""The loggers of a run: from its scenario and its directory, and their end with its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asgd_lab.loggers.base import LoggedRun
from asgd_lab.loggers.live import LiveLog
from asgd_lab.scenario import Scenario, presets

UNSAID = frozenset({"name", "description", "figure", "report", "log", "sweep"})  # of no effect on the run
NUMBERS = ("makespan_s", "minibatches", "updates", "minibatches_per_s")


def live_log(scenario: Scenario, out: Path, point: str) -> LiveLog | None:
    """The loggers that the scenario names; None if it names none."""
    if not scenario.log:
        return None
    execution = scenario.backend.execution
    values = presets.leaves(scenario.model_dump(mode="json", exclude=set(UNSAID)))
    hparams = {key: value for key, value in values if value is not None}
    run = LoggedRun(out, scenario.name, point or out.name, scenario.name if point else None, hparams, 0.0)
    return LiveLog(
        {each.name: each.logger for each in scenario.log}, run, workers=scenario.workers,
        round_steps=scenario.algorithm.n_fetch, virtual=execution.simulated or not execution.has_clock,
    )  # fmt: skip


def end_log(log: LiveLog | None, summary: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """End the loggers of a run with this summary, as far as it goes; see `LiveLog.end`."""
    if log is None:
        return {}, []
    numbers = {name: summary[name] for name in NUMBERS if name in summary}
    numbers |= {f"staleness/{name}": summary["staleness"][name] for name in ("mean", "max") if "staleness" in summary}
    numbers |= summary.get("final", {})
    final = {f"final/{name}": float(value) for name, value in numbers.items() if math.isfinite(value)}
    return log.end(summary["status"], final)
