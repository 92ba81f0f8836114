"""What training writes into buffers reaches evaluations: a replica's own; worker 0's beside the server's parameters."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asgd_lab import tasks
from asgd_lab.streams import key
from asgd_lab.tasks import network
from asgd_lab.tasks.determinism import same
from asgd_lab.tasks.feeds import walk
from asgd_lab.tasks.global_generators import preserving_generators
from asgd_lab.tasks.samples import pick
from tests.backends.scenarios import DIGITS, run, scenario
from tests.tasks.configs import Classification, pictures
from tests.whole import sample

STEPS = 40


class Standardising(nn.Module):
    """Keeps a running mean of its own, a count of type bfloat16, and a table that starts empty."""

    mean: Tensor
    seen: Tensor
    table: Tensor | None

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(64, num_classes)
        self.register_buffer("mean", torch.full((64,), 15.0))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bfloat16))
        self.register_buffer("table", None)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1) + 20
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.2)
            self.seen += 1
            self.table = x.detach().std(0) + 1 if self.table is None else self.table.lerp(x.detach().std(0) + 1, 0.1)
        found: Tensor = self.last((x - self.mean) / (2.0 if self.table is None else self.table))
        return found


def standardising(num_classes: int) -> nn.Module:
    return Standardising(num_classes)


class Frozen(nn.Module):
    """A backbone with BatchNorm that was trained before and is kept in evaluation mode."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())
        with torch.no_grad():
            for _ in range(30):
                self.backbone(2 * torch.randn(40, 64) + 1)
        self.backbone.requires_grad_(False)
        self.last = nn.Linear(32, num_classes)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(self.backbone(images))
        return found


def frozen(num_classes: int) -> nn.Module:
    return Frozen(num_classes)


def tracking(num_classes: int) -> nn.Module:
    """InstanceNorm keeps running statistics too, and is no BatchNorm."""
    return nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True), nn.Flatten(), nn.Linear(64, num_classes))


def normalised(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, num_classes))


FACTORIES = {"standardising": standardising, "frozen": frozen, "tracking": tracking, "normalised": normalised}


def plain(name: str) -> dict[int, float]:
    """The test loss of a plain loop after every so many steps."""
    data = tasks.load(Classification(train_samples=256))
    images, labels = pick(data, "train", torch.arange(len(data["train_labels"]))), data["train_labels"]
    tested = pick(data, "test", torch.arange(len(data["test_labels"])))
    order = walk(0, 0, len(labels), 16, torch.device("cpu"))
    with preserving_generators():
        torch.manual_seed(key(0, "initial"))
        model = FACTORIES[name](10)
        model.train()
        stepper = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.05, momentum=0.9)
        losses = {}
        for step in range(STEPS):
            stepper.zero_grad()
            cross_entropy(model(images[order(step)]), labels[order(step)]).backward()
            stepper.step()
            with torch.no_grad():
                losses[step + 1] = cross_entropy(model.eval()(tested), data["test_labels"]).item()
            model.train()
    return losses


@pytest.mark.parametrize(("name", "backend"), sample(itertools.product(FACTORIES, ["inline", "sim", "process"]), 6))
def test_one_worker_is_evaluated_as_a_plain_loop_on_the_way_and_at_the_end(
    tmp_path: Path, name: str, backend: str
) -> None:
    task = {**DIGITS, "model": f"tests.tasks.test_buffers:{name}"}
    summary = run(
        tmp_path / "run", task=task, algorithm={"name": "sgd", "n_sync": 4}, budget={"minibatches": STEPS},
        backend=backend,
        evaluate=None if backend == "inline" else {"every_minibatches": 8, "parameters": ["server", "replicas"]},
    )  # fmt: skip
    expected = plain(name)
    # For the server's parameters BatchNorm's statistics in training mode are estimated anew.
    near = {"rel": 0.5} if name == "normalised" else {"rel": 1e-5}
    assert summary["final"]["test_loss"] == pytest.approx(expected[STEPS], **near)
    if backend == "inline":
        return  # it evaluates nothing on the way
    rows = pd.read_parquet(tmp_path / "run" / "evals.parquet").query("split == 'test' and metric == 'loss'")
    servers = rows[rows["parameters"] == "server"].query("minibatches > 0")
    assert len(servers) > 3
    for count, value in zip(servers["minibatches"], servers["value"], strict=True):
        assert value == pytest.approx(expected[count], **near)
    replicas = rows[rows["parameters"] == "replica-0"]["value"].tolist()
    assert replicas == pytest.approx(
        [expected[count] for count in (4, *range(8, STEPS + 1, 8))][: len(replicas)], rel=1e-5
    )
    assert len(replicas) > 3


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_several_workers_keep_their_own_buffers(tmp_path: Path, backend: str) -> None:
    """Each replica's loss is that of a model that standardises; with the buffers of the start it would be far off."""
    task = {**DIGITS, "model": "tests.tasks.test_buffers:standardising"}
    summary = run(
        tmp_path / "run", task=task, algorithm={"name": "asgd", "n_sync": 4}, workers=2, budget={"minibatches": 120},
        backend=backend, evaluate={"every_minibatches": 40, "parameters": ["server", "replicas"]},
    )  # fmt: skip
    assert summary["final"]["test_loss"] < 1.0
    rows = pd.read_parquet(tmp_path / "run" / "evals.parquet").query("split == 'test' and metric == 'loss'")
    for worker in range(2):
        assert rows[rows["parameters"] == f"replica-{worker}"]["value"].iloc[-1] < 1.0


def test_a_resumed_learner_has_its_buffers_to_the_bit() -> None:
    task = tasks.build(Classification(model="tests.tasks.test_buffers:standardising"), 0, pictures())
    params = task.initial()
    learner = task.learner(0, params)
    for step in range(3):
        learner.minibatch(step)
    state = {name: torch.from_numpy(value.cpu().numpy().copy()) for name, value in learner.state().items()}
    copied = params.clone()
    other = tasks.build(Classification(model="tests.tasks.test_buffers:standardising"), 0, pictures()).learner(
        0, copied
    )
    other.load(state)
    for each in (learner, other):
        each.minibatch(3)
    assert torch.equal(params, copied)
    assert learner.buffers().keys() == {"mean", "seen", "table"}
    assert all(torch.equal(value, other.buffers()[name]) for name, value in learner.buffers().items())
    assert other.buffers()["seen"].dtype == torch.bfloat16


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_warm_start_leaves_its_buffers_to_the_workers(tmp_path: Path, backend: str) -> None:
    task = {**DIGITS, "model": "tests.tasks.test_buffers:standardising", "optimizer": {"name": "SGD", "lr": 1e-9}}
    summary = run(
        tmp_path / "run", task=task, algorithm={"name": "sgd", "n_sync": 1}, budget={"minibatches": 1},
        warm_start={"minibatches": 12}, backend=backend,
    )  # fmt: skip
    built = tasks.build(scenario(task=task).task, 0, tasks.load(scenario(task=task).task))
    params = built.initial()
    warm = built.learner(-1, params)
    for step in range(12):
        warm.minibatch(step)
    built.start_with(warm.buffers())
    learner = built.learner(0, params)
    learner.minibatch(0)
    assert learner.buffers()["seen"] == 13
    expected = {row[:2]: row[2] for row in built.evaluate(params, learner.buffers())}
    assert summary["final"]["test_loss"] == pytest.approx(expected["test", "loss"], rel=1e-4)


FLOATS = [each for each in vars(torch).values() if isinstance(each, torch.dtype) and each.is_floating_point]


@pytest.mark.parametrize("dtype", [each for each in FLOATS if each.itemsize == 2 or "float8" in str(each)], ids=str)
def test_short_floats_are_kept_in_files_and_compared(dtype: torch.dtype) -> None:
    value = torch.tensor([0.5, 1.0, 2.0]).to(dtype)
    kept = network.plain(value)
    assert torch.equal(torch.from_numpy(kept.numpy()).to(dtype).float(), value.float())
    assert same(value, value.clone(), 0.0)
