"""The early stop: by evaluations in a simulation, by loss or error in the pushes everywhere; it survives a resume."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.window import Patience, Windows
from asgd_lab.record.run import read_summary
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario, warnings
from tests.backends.chaos import members
from tests.backends.scenarios import QUADRATIC, TIMING
from tests.backends.scenarios import scenario as of_backends

from . import own_classes

OWN = {"name": "own", "task": f"{own_classes.__name__}:Plain", "optimizer": {"name": "SGD", "lr": 0.5}}
STILL = {"name": "quadratic", "curvature": [1.0], "optimizer": {"name": "SGD", "lr": 0.0}}
EVERY_20 = {"every_minibatches": 20}
BY_LOSS = {"split": "train", "metric": "loss", "patience": 3}


def stated(backend: Any, stop: dict[str, Any], **parts: Any) -> Scenario:
    budget = {"minibatches": 2000, "early_stop": stop, "target_window": 20}
    return of_backends(**{"task": OWN, "workers": 2, "backend": backend, "budget": budget, **parts})


def ends_at(values: list[float], patience: int, min_delta: float = 0.0, rises: bool = False) -> int | None:
    """The first observation after which `patience` of them on end have not beaten the best before by `min_delta`."""
    sign = -1.0 if rises else 1.0
    best, since = math.inf, 0
    for index, value in enumerate(values):
        since, best = (0, sign * value) if sign * value < best - min_delta else (since + 1, best)
        if since == patience:
            return index
    return None


@given(
    values=st.lists(st.integers(0, 9).map(float) | st.just(math.nan), max_size=40),
    patience=st.integers(1, 5), min_delta=st.sampled_from([0.0, 1.0, 2.0]), rises=st.booleans(),
)  # fmt: skip
@settings(max_examples=100)
def test_patience_ends_after_so_many_observations_that_are_no_improvement(
    values: list[float], patience: int, min_delta: float, rises: bool
) -> None:
    counted = Patience(patience, min_delta, rises)
    found = None
    for index, value in enumerate(values):
        counted.observe(value)
        if counted.reached:
            found = index
            break
    assert found == ends_at(values, patience, min_delta, rises)


def test_a_loss_that_is_infinite_or_no_number_is_never_an_improvement() -> None:
    counted = Patience(4)
    for value in (math.inf, math.nan, math.inf, math.inf):
        assert not counted.reached
        counted.observe(value)
    assert counted.reached
    assert math.isnan(counted.best)


@given(pushes=st.lists(st.integers(1, 9), max_size=40), width=st.integers(1, 12))
def test_a_window_of_pushes_is_observed_once_it_is_full_and_shares_no_push_with_another(
    pushes: list[int], width: int
) -> None:
    means: list[float] = []
    windows = Windows(width, means.append)
    for index, steps in enumerate(pushes):
        windows.add(steps, float(index))
    expected, inside = [], []
    for index, steps in enumerate(pushes):
        inside.append((steps, index))
        if sum(steps for steps, _ in inside) >= width:
            expected.append(sum(steps * value for steps, value in inside) / sum(steps for steps, _ in inside))
            inside = []
    assert means == pytest.approx(expected)


@pytest.mark.parametrize(
    "stop",
    [
        {"split": "test", "metric": "accuracy", "patience": 3, "mode": "max", "min_delta": 0.01},
        {"split": "other", "metric": "loss", "patience": 2},
    ],
)
def test_a_simulation_ends_when_evaluations_stop_improving_and_replays(tmp_path: Path, stop: dict[str, Any]) -> None:
    scenario = stated("sim", stop, evaluate=EVERY_20)
    summary = execute(scenario, tmp_path / "run")
    rows = parquet.read_table(tmp_path / "run" / "evals.parquet").to_pylist()
    values = [row["value"] for row in rows if (row["split"], row["metric"]) == (stop["split"], stop["metric"])][:-1]
    end = ends_at(values, stop["patience"], stop.get("min_delta", 0.0), stop.get("mode") == "max")
    assert end == len(values) - 1, "the last evaluation before that of the end"
    assert 20 * end <= summary["minibatches"] < 20 * end + 6
    best = max(values) if stop.get("mode") == "max" else min(values)
    assert summary["ended_by"] == "early_stop"
    assert summary["early_stop"]["observations"] == len(values)
    assert summary["early_stop"]["since_best"] == stop["patience"]
    assert summary["early_stop"]["best"] == pytest.approx(best, abs=stop.get("min_delta", 0.0))
    if stop["split"] == "other":
        assert summary == execute(scenario, tmp_path / "again"), "the parameters' hash among it"


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
@pytest.mark.parametrize("algorithm", [{"name": "asgd", "n_sync": 5}, {"name": "sync_sgd", "n_sync": 5}])
def test_a_loss_in_the_pushes_that_stands_still_ends_a_run_after_patience_on_every_backend(
    tmp_path: Path, backend: str, algorithm: dict[str, Any]
) -> None:
    """Rate 0 and no noise: the first window of 20 minibatches is the best one, and three more follow."""
    scenario = stated(backend, BY_LOSS, task=STILL, algorithm=algorithm)
    summary = execute(scenario, tmp_path / "run")
    assert summary["minibatches"] == 80
    assert summary["ended_by"] == "early_stop"
    assert summary["early_stop"] == {"best": 0.5, "observations": 4, "since_best": 3}
    if backend == "process":
        assert repeat(scenario, tmp_path / "run").difference is None


@pytest.mark.parametrize("metric", ["loss", "error"])
def test_the_windows_of_one_worker_are_those_of_its_minibatches(tmp_path: Path, metric: str) -> None:
    stop = {"split": "train", "metric": metric, "patience": 2}
    summary = execute(stated("inline", stop, workers=1), tmp_path / "run")
    rows = parquet.read_table(tmp_path / "run" / "minibatches.parquet").to_pylist()
    values = [row[metric] for row in sorted(rows, key=lambda row: row["step"])]
    means = [sum(values[at : at + 21]) / 21 for at in range(0, len(values) - 20, 21)]  # seven pushes of three
    assert ends_at(means, 2) == len(means) - 1
    assert summary["minibatches"] == 21 * len(means)
    assert summary["early_stop"]["best"] == pytest.approx(min(means))


class Paced(own_classes.Plain):
    """A minibatch takes some milliseconds, so that there is time to kill."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        time.sleep(0.003)
        return super().batch(worker, workers, seed, step)


def test_an_early_stop_survives_the_death_of_the_server_and_a_resume(tmp_path: Path) -> None:
    """One worker without momentum ends where an undisturbed one does."""
    stop = {"split": "train", "metric": "loss", "patience": 3}
    scenario = of_backends(
        task={**OWN, "task": f"{__name__}:Paced"}, workers=1, faults={"on_death": "restart"},
        backend={"name": "process", "checkpoint": {"every_updates": 5}},
        budget={"minibatches": 900, "early_stop": stop, "target_window": 12},
    )  # fmt: skip
    undisturbed = execute(scenario, tmp_path / "undisturbed")
    assert undisturbed["ended_by"] == "early_stop"
    assert undisturbed["updates"] >= 16
    killed: list[int] = []

    def disturb(progress: Any) -> None:
        if progress.version >= 6 and not killed:
            (server,) = members("server")
            killed.append(server.pid)
            server.kill()
        if progress.version >= 11:
            raise KeyboardInterrupt

    assert execute(scenario, tmp_path / "run", disturb)["status"] == "interrupted"
    assert killed
    assert "ended_by" not in read_summary(tmp_path / "run")
    summary = execute(scenario, tmp_path / "run", resume=True)
    for key in ("minibatches", "updates", "ended_by", "early_stop"):
        assert summary[key] == undisturbed[key]
    assert (final_params(tmp_path / "run") == final_params(tmp_path / "undisturbed")).all()
    assert repeat(scenario, tmp_path / "run").difference is None


@pytest.mark.parametrize(
    ("budget", "by"),
    [
        ({"minibatches": 40}, "minibatches"),
        ({"updates": 4}, "updates"),
        ({"seconds": 0.05}, "seconds"),
        ({"target_error": 0.9, "minibatches": 900}, "target_error"),
        ({"target": {"split": "train", "metric": "error", "below": 0.9}, "minibatches": 900}, "target"),
        ({"target": {"split": "test", "metric": "loss", "below": 9.0}, "minibatches": 900}, "target"),
    ],
)
@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_the_summary_tells_which_limit_ended_the_run(
    tmp_path: Path, backend: str, budget: dict[str, Any], by: str
) -> None:
    digits = {"name": "classification", "dataset": "digits", "train_samples": 64, "batch_size": 8}
    parts: dict[str, Any] = {"task": digits, "budget": budget, "backend": backend, "workers": 1}
    evaluated = by == "target" and budget["target"]["split"] == "test"
    if (backend != "sim" and evaluated) or (backend == "inline" and by == "seconds"):
        return  # refused there
    if evaluated:
        parts["evaluate"] = EVERY_20
    assert execute(of_backends(**parts), tmp_path / "run")["ended_by"] == by


def test_a_metric_that_no_evaluation_has_is_told_at_the_start(tmp_path: Path) -> None:
    stop = {"split": "test", "metric": "acuracy", "patience": 2}
    with pytest.raises(ScenarioError, match="they have: test accuracy, test error, test loss") as caught:
        execute(stated("sim", stop, evaluate=EVERY_20), tmp_path / "run")
    assert caught.value.key == "budget.early_stop"


@pytest.mark.parametrize(
    ("stop", "parts", "message"),
    [
        ({"split": "train", "metric": "f1", "patience": 2}, {}, "must be loss or error with split train"),
        ({"split": "train", "metric": "loss", "patience": 0}, {}, "greater than or equal to 1"),
        ({"split": "train", "metric": "loss"}, {}, "patience"),
        ({"split": "train", "metric": "loss", "patience": 1, "min_delta": -1.0}, {}, "greater than or equal to 0"),
        ({"split": "train", "metric": "loss", "patience": 1, "mode": "max"}, {}, "must be min with split train"),
        ({"split": "test", "metric": "loss", "patience": 1}, {}, "needs evaluations of the server's parameters"),
        (
            {"split": "test", "metric": "loss", "patience": 1}, {"backend": "process", "evaluate": EVERY_20},
            "must be train with backend process, which evaluates after the run; or use sim",
        ),
        ({"split": "train", "metric": "error", "patience": 1}, {"task": QUADRATIC}, "must be loss with task quadratic"),
        (BY_LOSS, {"task": TIMING}, "which learns nothing; remove it"),
    ],
)  # fmt: skip
def test_an_early_stop_that_cannot_be_observed_is_refused(
    stop: dict[str, Any], parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        stated(parts.pop("backend", "sim"), stop, **parts)


@pytest.mark.parametrize(
    ("stop", "minibatches", "parts", "message"),
    [
        (BY_LOSS, 79, {}, "79 minibatches have at most 3 observations of it, and its patience is 3"),
        (BY_LOSS, 80, {}, None),
        (BY_LOSS, 19, {}, "its window is wider than 19 minibatches"),
        ({"split": "test", "metric": "loss", "patience": 3}, 59, {"evaluate": EVERY_20}, "at most 3 observations"),
        ({"split": "test", "metric": "loss", "patience": 3}, 60, {"evaluate": EVERY_20}, None),
    ],
)
def test_an_early_stop_that_is_never_reached_is_a_warning(
    stop: dict[str, Any], minibatches: int, parts: dict[str, Any], message: str | None
) -> None:
    budget = {"minibatches": minibatches, "early_stop": stop, "target_window": 20}
    lines = [line for line in warnings.before(stated("sim", stop, budget=budget, **parts)) if "early_stop" in line]
    assert len(lines) == (0 if message is None else 1)
    assert message is None or message in lines[0]
