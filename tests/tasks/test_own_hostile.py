"""Task `own` with classes that go wrong: each is told in one line with its name before the start, or works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import asgd_lab
from asgd_lab.app.cli import app
from asgd_lab.backends.build import build_task
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.saved_model import final_params
from tests.whole import sample

from . import own_classes, own_hostile_classes
from .against_plain_pytorch import largest
from .own_hostile_classes import DOUBTED, HOSTILE, RIGHT
from .own_runs import ASGD, plain, stated


@pytest.mark.parametrize(("kind", "message"), sample(HOSTILE, 30), ids=lambda each: getattr(each, "__name__", ""))
def test_a_hostile_class_is_told_in_one_line_with_its_name_before_the_start(kind: type[Any], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        build_task(stated(kind))
    assert caught.value.key == "task.task"
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kind.__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"), sample(HOSTILE, 1, seed=3), ids=lambda each: getattr(each, "__name__", "")
)
def test_the_command_line_tells_it_with_file_and_line_and_status_2(
    tmp_path: Path, kind: type[Any], message: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        f"name: own\ntask:\n  name: own\n  task: {kind.__module__}:{kind.__name__}\n"
        "algorithm: {name: asgd, n_sync: 2}\nbudget: {minibatches: 9}\nbackend: inline\n"
    )
    found = CliRunner().invoke(app, ["validate", str(file), "--trust"])
    assert found.exit_code == 2, found.output
    (line,) = found.output.splitlines()
    assert line.startswith(f"{file}:4: task.task: ")
    assert message in line


def test_a_worker_in_the_middle_without_minibatches_is_told() -> None:
    with pytest.raises(ScenarioError, match=r"MiddleWorker.batch raised KeyError: 1"):
        build_task(stated(own_hostile_classes.MiddleWorker, algorithm=ASGD, workers=3))


@pytest.mark.parametrize(("kind", "messages"), DOUBTED)
def test_a_doubtful_evaluation_is_allowed_and_told(kind: type[Any], messages: list[str]) -> None:
    lines = build_task(stated(kind)).doubts
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith("task.task: ")
        assert message in line


@pytest.mark.parametrize("kind", RIGHT)
def test_an_unusual_minibatch_trains_as_in_a_plain_loop_to_the_bit(tmp_path: Path, kind: type[Any]) -> None:
    before, model = plain(kind)
    execute(stated(kind), tmp_path / "run")
    after = [each.detach() for each in model.parameters()]
    assert largest(before, after, final_params(tmp_path / "run")) == 0.0
    assert build_task(stated(kind)).doubts == []


@pytest.mark.parametrize("limit", ["target", "early_stop"])
def test_a_limit_by_a_metric_that_the_class_lacks_is_told_before_the_start(limit: str) -> None:
    how = {"above": 0.9} if limit == "target" else {"patience": 3}
    budget = {"minibatches": 9, limit: {"split": "test", "metric": "acuracy", **how}}
    with pytest.raises(
        ScenarioError, match="no metric of the evaluations, test acuracy; they have: test accuracy"
    ) as caught:
        build_task(stated(own_classes.Plain, "sim", budget=budget, evaluate={"every_minibatches": 3}))
    assert caught.value.key == f"budget.{limit}"


def negative(time: int) -> float:
    return -0.5


def nothing(time: int) -> None:
    return None


def imaginary(time: int) -> complex:
    return 1j


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("negative", "returns -0.5 at 0; it must return a finite factor, 0 or more"),
        ("nothing", "returns None at 0; it must return a finite factor, 0 or more"),
        ("imaginary", "returns 1j at 0; it must return a finite factor, 0 or more"),
    ],
)
def test_a_schedule_of_no_factor_is_told_before_the_start(name: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        build_task(stated(own_classes.Plain, task={"schedule": {"name": f"{__name__}:{name}"}}))
    assert caught.value.key == "task.schedule.name"


# ---------------------------------------------------------------- objects of Python


class Mine(own_classes.Plain):
    """A task of a notebook's cell, with something that cannot travel, or cannot be copied."""

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self.kept = kept


class RefusesCopies(Mine):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("one of its kind")


class RefusesRestores(Mine):
    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("cannot be restored")


class KnowsNoAttribute(Mine):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


LIVE: list[tuple[Callable[[], Any], str]] = [
    (lambda: Mine(threading.Lock()), "Mine cannot travel to processes, because of kept: TypeError"),
    (lambda: Mine(torch.ones(2, requires_grad=True) * 2), "cannot be copied: RuntimeError: Only Tensors created"),
    (RefusesCopies, "cannot be copied: RuntimeError: one of its kind"),
    (RefusesRestores, "cannot be copied: RuntimeError: cannot be restored"),
    (KnowsNoAttribute, "cannot be read: KnowsNoAttribute raised RuntimeError"),
    (lambda: nn.Linear(6, 3), "is a module, and no task; it is a class with the methods model, batch or stream"),
    (lambda: Mine().loss, "raised TypeError"),
    (lambda: torch.optim, "got the module torch.optim"),
    (lambda: lambda: 3, "has no method model; it is a class with the methods"),
]


@pytest.mark.parametrize(("make", "message"), LIVE)
def test_a_mistake_with_a_task_that_is_an_object_is_told_in_one_line(
    tmp_path: Path, make: Callable[[], Any], message: str
) -> None:
    scenario = {
        "name": "own", "task": {"name": "own", "task": make()}, "algorithm": {"name": "asgd", "n_sync": 3},
        "budget": {"minibatches": 6}, "backend": "inline",
    }  # fmt: skip
    with pytest.raises(ScenarioError) as caught:
        asgd_lab.run(scenario, out=tmp_path / "run")
    (line,) = str(caught.value).splitlines()
    assert line.startswith('scenario["task"]["task"]: ')
    assert message in line
    assert not (tmp_path / "run").exists()
