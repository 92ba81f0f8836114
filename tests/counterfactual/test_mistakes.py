"""Mistakes of a user of `explain` are told before the study, and what has been computed is not lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import asgd_lab as face
from asgd_lab import extending as lab
from asgd_lab.algorithms.rules import Add
from asgd_lab.backends.run import execute
from asgd_lab.counterfactual.files import JSON, LOOKS, PARQUET
from asgd_lab.record import removal
from tests.backends.scenarios import QUADRATIC, run, scenario
from tests.backends.test_resume import checkpointed, interrupted
from tests.cli.harness import asgd_lab
from tests.tasks.own_classes import Plain

SGD = {"name": "SGD", "lr": 0.05}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "run"
    run(out, backend="sim", workers=3, budget={"minibatches": 60})
    return out


# ---------------------------------------------------------------- before the study


def test_a_metric_that_the_run_lacks_is_told_after_dose_1(recorded: Path) -> None:
    seen: list[float] = []
    with pytest.raises(face.ScenarioError, match="metric: there is no 'accuracy'; the run has test_loss, train_loss"):
        face.explain(recorded, metric="accuracy", watch=lambda done, total: seen.append(done / total))
    assert 0 <= max(seen) <= 1 / 31  # of 30 arms and dose 1


OUTS = ("file", "file/inside", "link", "taken", "/proc/nothing", "/dev/null/x", "a" * 300, "x\0y")


@pytest.mark.parametrize("name", OUTS)
def test_a_folder_that_cannot_take_the_files_is_told_before_the_study(
    recorded: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "taken" / JSON).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    seen: list[int] = []
    with pytest.raises(face.ScenarioError) as raised:
        face.explain(recorded, out=tmp_path / name, watch=lambda done, total: seen.append(done))
    assert len(raised.value.args) == 1
    assert seen == []
    assert sorted(tmp_path.rglob("*")) == before
    if "\0" not in name:
        said = asgd_lab("explain", recorded, "--out", tmp_path / name)
        assert (said.status, len(said.err.splitlines())) == (2, 1)


def test_a_result_that_cannot_be_written_is_returned_and_written_elsewhere(recorded: Path, tmp_path: Path) -> None:
    """A file takes the folder's place during the study."""
    target = tmp_path / "there"

    def watch(done: int, total: int) -> None:
        target.touch()

    with pytest.warns(UserWarning, match="there: cannot take an explanation"):
        found = face.explain(recorded, seeds=1, out=target, watch=watch)
    with pytest.raises(face.ScenarioError, match="cannot take an explanation"):
        found.write(target)
    assert {path.name for path in found.write(tmp_path / "elsewhere")} == {JSON, PARQUET, LOOKS}


@pytest.mark.parametrize("values", [np.linspace(0, 1, 3), pd.Series([0.0, 0.5, 1.0]), (0, 0.5, np.float32(1))])
def test_doses_may_come_from_an_array(recorded: Path, values: Any) -> None:
    assert {*face.explain(recorded, doses=values, seeds=1).frame["dose"]} == {0.0, 0.5, 1.0}


WRONG: dict[str, list[Any]] = {
    "doses": [0.5, ["a"], [], [1, 1], [2], np.ones((2, 2)), "1,0", [math.nan], [10**5000], {0.5: 1}, [True]],
    "rates": [1, [0], [math.inf], [None], range(2), [np.array([1, 2])]],
    "seeds": [0, 1.5, 1001, "3"],
    "causes": ["staleness", [5], [], ["drift", "drift"], [np.array([1, 2])], None],
    "rules_see": [None, ["recorded"], np.array(["recorded", "x"]), ""],
    "metric": [5, "", ["test_loss"]],
    "watch": [5, "x"],
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_a_wrong_kind_is_one_line_with_its_name(recorded: Path, name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(face.ScenarioError) as raised:
            face.explain(recorded, **{name: value})
        (line,) = raised.value.args
        assert line.startswith(f"{name}: "), (value, line)


# ---------------------------------------------------------------- runs of a user's code


class InTraining(Plain):
    """Its loss raises an error where the parameters are far away."""

    def loss(self, model: torch.nn.Module, batch: Any) -> Any:
        loss, metrics = super().loss(model, batch)
        if not loss < 1e3:
            raise ValueError("it has diverged")
        return loss, metrics


class InEvaluation(Plain):
    """Its loss raises an error where the parameters are far away, in evaluations alone."""

    def loss(self, model: torch.nn.Module, batch: Any) -> Any:
        loss, metrics = super().loss(model, batch)
        if not (loss < 1e3 or model.training):
            raise ValueError("it has diverged")
        return loss, metrics


def own(task: type) -> dict[str, Any]:
    stated = {"name": "own", "task": f"{task.__module__}:{task.__name__}", "optimizer": SGD}
    return {"task": stated, "backend": "sim", "workers": 3, "budget": {"minibatches": 30}}


@pytest.mark.parametrize("task", [InTraining, InEvaluation])
def test_executions_that_fail_have_no_value_and_no_best_rate(tmp_path: Path, task: type) -> None:
    execute(scenario(**own(task)), tmp_path / "run")
    found = face.explain(tmp_path / "run", rates=[1e12, 2e12], seeds=2, doses=[0])
    assert found.frame["test_loss"].isna().all()
    assert "dose 1 has no best rate: an execution has diverged at each" in found.lines
    assert any("not known: at least one execution has diverged" in line for line in found.lines)
    assert found.best_rates == {}
    found.write(tmp_path / "files")
    found.plot()


def test_the_best_rate_is_that_of_the_highest_accuracy_and_of_the_lowest_loss(tmp_path: Path) -> None:
    execute(scenario(**own(Plain)), tmp_path / "run")
    rates = [1e-3, 1.0]
    for metric, best in (("test_accuracy", max), ("test_loss", min)):
        found = face.explain(tmp_path / "run", rates=rates, seeds=1, doses=[0], metric=metric)
        means = {rate: found.values("staleness", 1.0, rate)[0] for rate in rates}
        assert means[rates[0]] != means[rates[1]]
        assert found.best_rate(1.0) == best(means, key=means.__getitem__)


class Scored(Plain):
    """Its metric is called by a name that tells no direction."""

    def loss(self, model: torch.nn.Module, batch: Any) -> Any:
        loss, metrics = super().loss(model, batch)
        return loss, {"quux": metrics["accuracy"]}


def test_no_best_rate_is_told_of_a_metric_without_a_known_direction(tmp_path: Path) -> None:
    execute(scenario(**own(Scored)), tmp_path / "run")
    found = face.explain(tmp_path / "run", rates=[0.5, 1], seeds=1, doses=[0], metric="test_quux")
    assert found.best_rate(1.0) is None
    assert [each.rate for each in found.effects] == [0.5, 1.0]
    assert "no best rate is told: nothing says whether a higher test_quux is better" in found.lines


class Bare(lab.Configuration):
    """An algorithm without the key momentum_at_fetch."""

    name: str
    n_fetch: int = 2
    n_push: int = 2

    @property
    def rule(self) -> list[lab.Link]:
        return [Add(name="add")]

    @property
    def push(self) -> Any:
        return "delta"

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return lab.Algorithm(
            name="bare", program=lab.coupled, gate=lab.Asynchronous(), rule=rule, n_fetch=2, pushes="delta",
            vectors=lab.Delta,
        )  # fmt: skip


def test_momentum_is_removed_from_an_algorithm_without_its_key(tmp_path: Path) -> None:
    """Its state is kept at a fetch, so it is as asgd, whose deltas are added."""
    keys = {"bare": {"name": f"{__name__}:Bare"}, "asgd": {"name": "asgd", "n_sync": 2, "rule": ["add"]}}
    values = {}
    for name, algorithm in keys.items():
        execute(scenario(backend="sim", workers=2, algorithm=algorithm), tmp_path / name)
        found = face.explain(tmp_path / name, causes=["momentum"], seeds=1)
        values[name] = found.values("momentum", 0.0, 1.0), found.values("staleness", 1.0, 1.0)
    assert values["bare"] == values["asgd"]
    assert values["bare"][0] != values["bare"][1]


# ---------------------------------------------------------------- runs that go on


def test_a_run_that_was_interrupted_and_went_on_is_explained(tmp_path: Path) -> None:
    """An explanation of its beginning goes away when it goes on."""
    stated = checkpointed(40, workers=2, task=QUADRATIC, budget={"minibatches": 3000})
    interrupted(stated, tmp_path / "run", 60)
    before = face.explain(tmp_path / "run", seeds=1, doses=[0], out=tmp_path / "run")
    assert any("it is interrupted" in line for line in before.lines)
    summary = execute(stated, tmp_path / "run", resume=True)
    assert summary["status"] == "done"
    assert not [*(tmp_path / "run").glob("explain*")]
    found = face.explain(tmp_path / "run", seeds=1, doses=[0])
    assert found.facts.compares_final
    assert found.facts.pushes == summary["updates"] > before.facts.pushes
    assert found.points[0].staleness == pytest.approx(summary["staleness"]["mean"])


def test_the_files_of_an_explanation_are_a_runs_own() -> None:
    assert all(removal.is_ours(name) for name in (JSON, PARQUET, LOOKS))
