"""Task `own`: a user's class against a plain loop over the same class, its state, and its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from asgd_lab import tasks
from asgd_lab.app.cli import app
from asgd_lab.backends.build import build_task
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.saved_model import final_params
from tests.whole import sample

from . import own_classes, own_real_classes, own_wrong_classes
from .against_plain_pytorch import largest
from .own_runs import ADAM, ASGD, plain, stated

GOOD = [*own_classes.GOOD, *own_real_classes.REAL]
CASES = [(kind, backend) for kind in GOOD for backend in ("inline", "sim")]


@pytest.mark.parametrize(("kind", "backend"), CASES)
def test_a_class_of_ones_own_trains_as_in_a_plain_loop_to_the_bit(
    tmp_path: Path, kind: type[Any], backend: str
) -> None:
    before, model = plain(kind)
    summary = execute(stated(kind, backend), tmp_path / "run")
    after = [each.detach() for each in model.parameters() if each.requires_grad]
    assert largest(before, after, final_params(tmp_path / "run")) == 0.0
    evaluates = hasattr(kind(), "evaluations")
    assert any(name.endswith("_loss") for name in summary["final"]) is evaluates


def test_evaluations_have_every_metric_and_every_split_as_a_plain_loop_counts_them(tmp_path: Path) -> None:
    _, model = plain(own_classes.Plain)
    execute(stated(own_classes.Plain), tmp_path / "run")
    own, expected = own_classes.Plain(), {}
    model.eval()
    for split, batches in own.evaluations():
        with torch.no_grad():
            found = [own.loss(model, batch) for batch in batches]
        expected[split, "loss"] = sum(loss.item() for loss, _ in found) / len(found)
        for name in ("accuracy", "error"):
            expected[split, name] = sum(int(each[name][0]) for _, each in found) / (own_classes.B * len(found))
    rows = parquet.read_table(tmp_path / "run" / "evals.parquet").to_pylist()
    told = {(row["split"], row["metric"]): row["value"] for row in rows}
    assert told == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


@pytest.mark.parametrize("kind", sample(GOOD, 3))
def test_real_workers_of_a_class_replay_to_the_bit_and_resume(tmp_path: Path, kind: type[Any]) -> None:
    backend = {"name": "process", "checkpoint": {"every_updates": 20}}
    whole = stated(kind, backend, algorithm=ASGD, budget={"minibatches": 600})  # type: ignore[arg-type]

    def until_a_checkpoint(progress: Any) -> None:
        if progress.version >= 45:
            raise KeyboardInterrupt

    assert execute(whole, tmp_path / "run", until_a_checkpoint)["status"] == "interrupted"
    assert execute(whole, tmp_path / "run", resume=True)["status"] == "done"
    execute(whole, tmp_path / "at-once")
    assert (final_params(tmp_path / "run") == final_params(tmp_path / "at-once")).all()
    assert repeat(whole, tmp_path / "run").difference is None


@pytest.mark.parametrize("kind", GOOD)
def test_a_restored_learner_of_a_class_goes_on_as_the_one_that_was_saved(kind: type[Any]) -> None:
    task = build_task(stated(kind, algorithm=ASGD, workers=2))
    task.check_resume()
    before, vector = task.learner(1, (params := task.initial())), task.initial()
    for step in range(4):
        before.minibatch(step)
    state = {name: value.clone() for name, value in before.state().items()}
    vector.copy_(params)
    after = task.learner(1, vector)
    after.load(state)
    assert [before.minibatch(step) for step in (4, 5)] == [after.minibatch(step) for step in (4, 5)]
    assert torch.equal(params, vector)


def test_a_restarted_worker_reads_its_stream_from_the_step_that_it_has_reached() -> None:
    task = build_task(stated(own_classes.Streamed))
    first, again = (task.learner(0, task.initial()) for _ in range(2))
    losses = [first.minibatch(step) for step in range(5)]
    again.params.copy_(task.initial())  # type: ignore[attr-defined]
    assert torch.equal(again.batches(3)["inputs"], task.learner(0, task.initial()).batches(3)["inputs"])  # type: ignore[attr-defined]
    assert again.batches(0)["inputs"].equal(task.learner(0, task.initial()).batches(0)["inputs"])  # type: ignore[attr-defined]
    assert task.learner(0, task.initial()).minibatch(0) == losses[0]


def test_momentum_that_is_reset_leaves_a_schedule_of_ones_own_where_it_was() -> None:
    task = build_task(stated(own_classes.TwoOptimizers))
    learner: Any = task.learner(0, task.initial())
    for step in range(6):
        learner.minibatch(step)
    rate = learner.optimizer.param_groups[0]["lr"]
    assert rate < 0.01
    learner.reset_momentum()
    assert learner.optimizer.param_groups[0]["lr"] == rate
    learner.minibatch(6)
    assert learner.optimizer.param_groups[0]["lr"] < rate


@pytest.mark.parametrize(("kind", "message"), [*own_classes.WRONG, *own_wrong_classes.MORE_WRONG])
def test_a_wrong_class_is_told_in_one_line_with_its_name_before_the_start(kind: type[Any], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        build_task(stated(kind))
    assert caught.value.key == "task.task"
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kind.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "keys", "key", "message"),
    [
        (own_classes.Plain, {"options": {"hiden": 3}}, "task.options.hiden", "did you mean 'hidden'?"),
        (own_classes.Gan, {"optimizer": ADAM}, "task.optimizer", "makes its own; remove it"),
        (own_classes.Gan, {"clip": {"norm": 1.0}}, "task.clip", "has a step of its own, which may clip"),
        (own_classes.Gan, {"precision": "bfloat16"}, "task.precision", "has a step of its own, which may cast"),
        (own_classes.Plain, {"task": "tests.tasks.own_classes:Non"}, "task.task", "has no 'Non'"),
        (own_classes.Plain, {"task": "no_such_module:Mine"}, "task.task", "no_such_module cannot be imported"),
    ],
)
def test_keys_beside_a_class_that_contradict_it_are_refused(
    kind: type[Any], keys: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        build_task(stated(kind, task=keys))
    assert caught.value.key == key


def test_a_step_of_ones_own_has_no_gradients_to_push() -> None:
    push = {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "sgd", "lr": 0.1}]}
    with pytest.raises(ScenarioError, match="has a step of its own; use push: delta"):
        build_task(stated(own_classes.Gan, algorithm=push))


def test_a_class_is_imported_and_run_only_if_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("open('ran', 'w').close()\nclass Task: pass\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\ntask: {name: own, task: 'stranger:Task'}\nalgorithm: {name: asgd, n_sync: 2}\n"
        "budget: {minibatches: 9}\nbackend: inline\n"
    )
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["run", "own.yaml"])
    assert found.exit_code == 2
    assert "own.yaml:2: task.task: stranger:Task would be imported and run" in found.output
    assert not (tmp_path / "ran").exists()


def test_a_class_cannot_be_batched_and_auto_computes_it_one_by_one(tmp_path: Path) -> None:
    backend = {"name": "sim", "numerics": "auto"}
    summary = execute(stated(own_classes.Plain, backend, algorithm=ASGD, workers=2), tmp_path / "run")  # type: ignore[arg-type]
    assert summary["numerics"]["mode"] == "sequential"
    task = tasks.build(stated(own_classes.Plain).task, 0, {}, checked=True)
    with pytest.raises(ScenarioError, match="cannot be batched: the task is own"):
        task.batch()


class Idle(own_classes.Plain):
    """A step that forgets its optimizer."""

    def step(self, model: nn.Module, optimizers: Any, batch: Any) -> Any:
        return self.loss(model, batch)


def test_a_step_that_changes_nothing_is_a_warning() -> None:
    task = {"name": "own", "task": f"{__name__}:Idle"}
    built = build_task(stated(own_classes.Plain, task=task))
    assert built.doubts == [f"task.task: {__name__}:Idle changes no parameter in two minibatches"]


def halves(time: int) -> float:
    return 0.5 ** (time // 3)


def not_a_number(time: int) -> float:
    return float("nan")


@pytest.mark.parametrize("backend", ["inline", "sim"])
def test_a_schedule_of_ones_own_is_that_of_the_same_values(tmp_path: Path, backend: str) -> None:
    own = {"schedule": {"name": f"{__name__}:halves"}}
    ours = {"schedule": {"name": "step", "every": 3, "factor": 0.5}}
    for name, task in (("own", own), ("ours", ours)):
        execute(stated(own_classes.Plain, backend, task=task), tmp_path / name)
    assert (final_params(tmp_path / "own") == final_params(tmp_path / "ours")).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [("not_a_number", "returns nan at 0; it must return a finite factor"), ("none", "has no 'none'")],
)
def test_a_schedule_that_is_none_is_told_before_the_start(name: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        build_task(stated(own_classes.Plain, task={"schedule": {"name": f"{__name__}:{name}"}}))
    assert caught.value.key == "task.schedule.name"


@pytest.mark.parametrize(("kind", "message"), own_wrong_classes.DOUBTFUL)
def test_a_doubtful_class_is_allowed_and_told_in_one_line_with_its_name(kind: type[Any], message: str) -> None:
    lines = build_task(stated(kind, algorithm=ASGD, workers=2)).doubts
    assert len(lines) == 1, lines
    assert lines[0].startswith("task.task: ")
    assert message in lines[0]
    assert kind.__name__ in lines[0]


class LastWorker(own_classes.Plain):
    """Two files for three workers."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        return super().batch(worker if worker > 9 else [0, 1][worker], workers, seed, step)


def test_a_last_worker_without_minibatches_is_told_before_the_start() -> None:
    with pytest.raises(ScenarioError, match=r"LastWorker.batch raised IndexError: list index out of range"):
        build_task(stated(LastWorker, algorithm=ASGD, workers=3))
