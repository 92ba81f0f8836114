"""What a user brings: a model, data, a loss, an optimizer; schedules, clipping, divided data, BatchNorm."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from asgd_lab import tasks
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Document
from asgd_lab.task_keys.networks import Dirichlet, Sharded
from asgd_lab.task_keys.optimizers import Schedule
from asgd_lab.tasks import build
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.clipping_and_schedules import rate_factor
from asgd_lab.tasks.data_division import divided
from tests.backends.scenarios import DIGITS, run

from .configs import Classification, Optimizer, pictures

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_the_example_learns_on_every_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scenarios"))
    (point,) = Document.read("bring-your-own").points({"backend.name": backend, "evaluate": None})
    summary = execute(point.scenario, tmp_path / "run")
    assert summary["minibatches"] == 3000
    assert summary["final"]["test_loss"] < 0.02
    assert "test_error" not in summary["final"], "there are no classes to err in"


def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> str:
    """A module of that code; its name."""
    name = f"own_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text("import torch\n" + code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    ("code", "key", "message"),
    [
        ("def make(): return 3", "task.dataset", "returned int; it must be a dict of tensors or arrays train_images"),
        ("def make(): return {'train_images': torch.ones(2, 2)}", "task.dataset", "returned ['train_images']"),
        ("def make(): raise OSError('no disk')", "task.dataset", "raised OSError: no disk"),
        (
            "def make(): return {f'{s}_{w}': torch.ones(3 if w == 'images' else 2, 2)"
            " for s in ('train', 'test') for w in ('images', 'labels')}",
            "task.dataset", "train_images of (3, 2) for labels of (2, 2)",
        ),
    ],
)  # fmt: skip
def test_data_that_are_none_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, key: str, message: str
) -> None:
    config = Classification(dataset=own(monkeypatch, tmp_path, code) + ":make")
    with pytest.raises(ScenarioError) as caught:
        tasks.load(config)
    assert caught.value.key == key
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def loss(o, l): raise ValueError('odd')", "it raised ValueError: odd"),
        ("def loss(o, l): return 1.0", "it returns float; it must be the mean"),
        ("def loss(o, l): return (o - 1) ** 2", "it returns a tensor of (10, 4)"),
    ],
)
def test_a_loss_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    config = Classification(loss=own(monkeypatch, tmp_path, code) + ":loss")
    with pytest.raises(ScenarioError) as caught:
        build(config, 0, pictures())
    assert caught.value.key == "task.loss"
    assert message in str(caught.value)


def test_labels_that_are_no_classes_need_a_loss() -> None:
    data = {name: value.float() for name, value in pictures().items()}
    with pytest.raises(ScenarioError, match="labels that are no classes need a loss of their own"):
        ClassificationTask(Classification(), 0, data)


def test_an_optimizer_of_ones_own_takes_the_steps_of_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = own(monkeypatch, tmp_path, "class Mine(torch.optim.Adam): pass\ndef none(params, lr): return 3")
    data = pictures()
    found = []
    for optimizer in (f"{name}:Mine", "Adam"):
        task = ClassificationTask(Classification(optimizer=Optimizer(optimizer, {"lr": 0.01})), 0, data)
        params = task.initial()
        learner = task.learner(0, params)
        for step in range(3):
            learner.minibatch(step)
        found.append(params)
    assert torch.equal(*found)
    with pytest.raises(ScenarioError, match=r"takes no 'rl'; did you mean 'lr'\? allowed: lr, betas"):
        ClassificationTask(Classification(optimizer=Optimizer(f"{name}:Mine", {"rl": 0.01})), 0, data)
    with pytest.raises(ScenarioError, match="'int' object has no attribute 'step'"):
        ClassificationTask(Classification(optimizer=Optimizer(f"{name}:none", {"lr": 0.01})), 0, data)


# ---------------------------------------------------------------- schedules and clipping


def test_schedules_are_what_they_say() -> None:
    step = Schedule(name="step", every=10, factor=0.5, warmup=4)
    assert [rate_factor(step, time) for time in (0, 1, 3, 9, 10, 25)] == [0.25, 0.5, 1.0, 1.0, 0.5, 0.25]
    linear = Schedule(name="linear", length=10, final=0.2)
    assert [rate_factor(linear, time) for time in (0, 5, 10, 99)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    cosine = Schedule(name="cosine", length=10)
    assert [rate_factor(cosine, time) for time in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert rate_factor(Schedule(name="constant"), 7) == 1.0


@given(length=st.integers(1, 50), final=st.floats(0, 1), name=st.sampled_from(["linear", "cosine"]))
def test_a_schedule_falls_from_1_to_its_end_and_stays(length: int, final: float, name: Any) -> None:
    schedule = Schedule(name=name, length=length, final=final)
    values = [rate_factor(schedule, time) for time in range(length + 3)]
    assert values[0] == 1.0
    assert values[-1] == pytest.approx(final)
    assert all(later <= sooner + 1e-12 for sooner, later in itertools.pairwise(values))


@pytest.mark.parametrize("clock", ["steps", "versions"])
@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_learning_rate_follows_its_clock_on_every_backend(tmp_path: Path, clock: str, backend: str) -> None:
    """A bowl without noise, curvature 1: each step multiplies by 1 - lr, whose halvings the clock times."""
    task = {"name": "quadratic", "curvature": [1.0], "optimizer": {"name": "SGD", "lr": 0.5},
            "schedule": {"name": "step", "clock": clock, "every": 2, "factor": 0.5}}  # fmt: skip
    summary = run(tmp_path / "run", task=task, algorithm={"name": "sgd", "n_sync": 2}, backend=backend,
                  budget={"minibatches": 8})  # fmt: skip
    times = range(8) if clock == "steps" else [step // 2 for step in range(8)]  # two minibatches a version
    expected = math.prod(1 - 0.5 * 0.5 ** (time // 2) for time in times)
    assert summary["final"]["test_loss"] == pytest.approx(0.5 * expected**2)


@pytest.mark.parametrize(("clip", "largest"), [({"norm": 0.01}, None), ({"value": 0.001}, 0.001)])
def test_gradients_are_clipped_before_the_step_and_before_they_are_added_up(
    clip: dict[str, float], largest: float | None
) -> None:
    config = Classification(clip=SimpleNamespace(norm=clip.get("norm"), value=clip.get("value")))
    task = ClassificationTask(config, 0, pictures())
    params, gradients = task.initial(), torch.zeros(task.size)
    before = params.clone()
    task.learner(0, params, gradients).minibatch(0)
    assert torch.allclose(before - params, 0.1 * gradients, atol=1e-6), "the step is that of the clipped gradient"
    if largest is not None:
        assert gradients.abs().max().item() == pytest.approx(largest)
    else:
        assert gradients.norm().item() == pytest.approx(0.01, rel=1e-3)


# ---------------------------------------------------------------- whose samples


@given(
    workers=st.integers(1, 8), samples=st.integers(40, 200), classes=st.integers(1, 5), seed=st.integers(0, 99),
    alpha=st.none() | st.floats(0.05, 100),
)  # fmt: skip
@settings(max_examples=80)
def test_every_sample_belongs_to_one_worker(
    workers: int, samples: int, classes: int, seed: int, alpha: float | None
) -> None:
    labels = np.arange(samples, dtype=np.int64) % classes
    config = Sharded(name="sharded") if alpha is None else Dirichlet(name="dirichlet", alpha=alpha)
    parts = divided(config, torch.from_numpy(labels), workers, 0, seed)  # a part may be empty
    assert parts is not None
    assert sorted(np.concatenate(parts).tolist()) == list(range(samples))
    if alpha is None:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = divided(config, torch.from_numpy(labels), workers, 0, seed)
    assert again is not None
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


def test_a_small_alpha_skews_the_labels_and_a_large_one_does_not() -> None:
    """The mean, over workers, of the share of their commonest class; ten classes, ten workers."""
    labels = np.arange(10_000) % 10

    def commonest(alpha: float) -> float:
        parts = divided(Dirichlet(name="dirichlet", alpha=alpha), torch.from_numpy(labels), 10, 1, 1)
        assert parts is not None
        return float(np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]))

    assert commonest(1000.0) < 0.12 < 0.4 < commonest(0.1)


def test_a_worker_walks_through_its_own_part_alone() -> None:
    data = pictures(60)
    task = ClassificationTask(Classification(batch_size=5, data=Sharded(name="sharded")), 3, data, workers=3)
    parts = divided(Sharded(name="sharded"), data["train_labels"], 3, 5, 3)
    assert parts is not None
    for worker in range(3):
        order = task.learner(worker, task.initial()).batches.order
        epoch = torch.cat([order(step) for step in range(4)])
        assert sorted(epoch.tolist()) == parts[worker].tolist()


def test_parts_smaller_than_a_minibatch_are_refused() -> None:
    with pytest.raises(ScenarioError, match="worker 0 gets 6 samples, and a minibatch has 7"):
        ClassificationTask(Classification(batch_size=7, data=Sharded(name="sharded")), 0, pictures(60), workers=10)


# ---------------------------------------------------------------- BatchNorm


def normed(num_classes: int) -> nn.Module:
    """A factory that scenarios of these tests name."""
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, num_classes))


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_the_servers_batch_norm_travels_with_the_parameters(tmp_path: Path, backend: str) -> None:
    """One worker whose deltas are added whole: the server's running mean is the one that the worker has."""
    task = {**DIGITS, "model": "tests.tasks.test_own:normed", "batch_norm": "server"}
    summary = run(tmp_path / "run", task=task, algorithm={"name": "sgd", "n_sync": 3}, backend=backend)
    with np.load(tmp_path / "run" / "checkpoints" / "final.npz") as stored:
        params = torch.from_numpy(stored["params"]).clone()  # which is aligned
    (point,) = Document.read(str(tmp_path / "run" / "scenario.yaml")).points()
    built = tasks.build(point.scenario.task, 0, tasks.load(point.scenario.task))
    assert isinstance(built, ClassificationTask)
    mean, variance = built.network.layout.views(params)[-2:]
    assert mean.shape == variance.shape == (64,)
    assert not torch.equal(mean, torch.zeros(64))
    assert summary["final"]["test_error"] < 0.9
    local = run(tmp_path / "local", task={**task, "batch_norm": "local"}, algorithm={"name": "sgd", "n_sync": 3})
    assert local["final"]["train_loss"] == pytest.approx(summary["final"]["train_loss"], rel=0.5)
