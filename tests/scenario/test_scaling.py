"""A task that stands for a larger one: the scenario keeps the larger one's numbers, and what is executed is divided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.scenario import Document, Scenario
from asgd_lab.scenario.scaling import scaled

LARGE: dict[str, Any] = {
    "name": "large",
    "task": {
        "name": "classification", "dataset": "digits", "batch_size": 16, "scale": 10, "size_bytes": 244_000_000,
        "schedule": {"name": "cosine", "length": 400, "warmup": 20},
    },
    "algorithm": {"name": "asgd", "n_fetch": 30, "n_push": 60},
    "workers": 2,
    "budget": {"minibatches": 1200},
    "warm_start": {"minibatches": 50},
    "evaluate": {"every_minibatches": 600},
    "backend": "sim",
    "hardware": {"compute": {"distribution": "lognormal", "step_s": 0.5, "cv": 0.2},
                 "link": {"bandwidth_bytes_per_s": 1e8}},
}  # fmt: skip


def test_all_counts_are_divided_and_times_multiplied() -> None:
    small = scaled(Scenario.model_validate(LARGE))
    assert (small.algorithm.n_fetch, small.algorithm.n_push) == (3, 6)
    assert small.budget.minibatches == 120
    assert small.warm_start is not None
    assert small.warm_start.minibatches == 5
    assert small.evaluate is not None
    assert small.evaluate.every_minibatches == 60
    of_steps = scaled(Scenario.model_validate(LARGE | {"evaluate": {"every_steps": 600}}))
    assert of_steps.evaluate is not None
    assert (of_steps.evaluate.every_steps, of_steps.evaluate.interval(2)) == (60, 120)
    assert small.task.schedule is not None  # type: ignore[union-attr]
    assert (small.task.schedule.length, small.task.schedule.warmup) == (40, 2)  # type: ignore[union-attr]
    assert small.hardware.compute.step_s == 5.0
    assert small.hardware.compute.cv == pytest.approx(0.2 / 10**0.5)
    assert scaled(small) is small


def test_a_schedule_of_versions_is_left_alone() -> None:
    schedule = {"name": "step", "every": 7, "clock": "versions"}
    stated = Scenario.model_validate({**LARGE, "task": LARGE["task"] | {"schedule": schedule}})
    assert scaled(stated).task.schedule.every == 7  # type: ignore[union-attr]


def test_a_run_takes_the_large_systems_time_with_a_tenth_of_its_minibatches(tmp_path: Path) -> None:
    """And moves its bytes: 2.44 s a transfer of 244 MB over 100 MB/s, twice a round of 30 or 60 minibatches."""
    stated = Scenario.model_validate(LARGE | {"workers": 1, "algorithm": {"name": "asgd", "n_sync": 60}})
    summary = execute(stated, tmp_path / "run")
    assert summary["minibatches"] == 120
    assert summary["updates"] == 20
    assert summary["makespan_s"] == pytest.approx(1200 * 0.5 + 20 * 2 * 2.44, rel=0.02)
    effects = tables.read(tmp_path / "run", "effects")
    assert set(effects[effects["kind"] == "push"]["bytes"]) == {244_000_000}
    (recorded,) = Document.read(tmp_path / "run" / "scenario.yaml").points()
    assert recorded.scenario == stated, "the record is of what was asked for"
