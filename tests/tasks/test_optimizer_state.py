"""An optimizer that is saved and loaded goes on to the bit, wherever it keeps its state, or is refused at the start."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, checkpoints
from asgd_lab.record.saved_model import final_params
from asgd_lab.tasks import build
from asgd_lab.tasks.base import Task
from asgd_lab.tasks.optimizer_state import load_state, state_of
from asgd_lab.tasks.optimizers import _classes, optimizer
from tests.backends.scenarios import QUADRATIC, scenario
from tests.backends.test_resume import interrupted

from .configs import Classification, Optimizer, Quadratic, pictures
from .keepers import KEPT, LOST_LATER, REFUSED, CountInGroup, MomentumOfMatrices, SlowInAttributes

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "fused": True}, {"momentum": 0.5, "foreach": True}],
    "Adam": [{"amsgrad": True}, {"fused": True}, {"capturable": False, "foreach": True}],
    "AdamW": [{"amsgrad": True, "weight_decay": 0.3}, {"fused": True}],
    "RMSprop": [{"centered": True, "momentum": 0.9}],
    "Adagrad": [{"lr_decay": 0.1, "initial_accumulator_value": 0.5}, {"fused": True}],
    "Rprop": [{"step_sizes": [1e-5, 5.0]}],
}
CASES = [(name, options) for name in _classes() for options in [{}, *OPTIONS.get(name, [])]]


def through_a_file(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    checkpoints.begin(path, 1)
    assert checkpoints.write(path, 1, "worker-0", {name: value.numpy() for name, value in state.items()})
    (file,) = path.rglob("worker-0.npz")
    return {name: torch.from_numpy(value) for name, value in atomic_files.read_arrays(file).items()}


def step(weights: list[Tensor], made: torch.optim.Optimizer, number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)
    for place, weight in enumerate(weights):
        weight.grad = torch.cos(torch.arange(weight.numel() * 1.0).view(weight.shape) * (1 + number) + place)
    made.step()


def fresh(name: str, options: dict[str, Any]) -> tuple[list[Tensor], torch.optim.Optimizer]:
    shapes = [(3, 4), (2, 2)] if name == "Muon" else [(3, 4), (5,), ()]
    weights = [torch.linspace(-1, 1, max(1, torch.Size(shape).numel())).view(shape) for shape in shapes]
    for weight in weights:
        weight.requires_grad_()
    return weights, optimizer(Optimizer(name, options))(weights)


@pytest.mark.parametrize(
    ("name", "options"), [*CASES, *((f"tests.tasks.keepers:{each.__name__}", {}) for each in KEPT)]
)
def test_an_optimizer_goes_on_from_a_file_to_the_bit(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    weights, made = fresh(name, options)
    for number in range(3):
        step(weights, made, number)
    others, loaded = fresh(name, options)
    for other, weight in zip(others, weights, strict=True):
        other.data.copy_(weight.detach())
    load_state(loaded, through_a_file(state_of(made), tmp_path / "checkpoint"))
    for number in range(3, 12):
        step(weights, made, number)
        step(others, loaded, number)
        assert all(map(torch.equal, weights, others)), f"another step {number}"


@pytest.mark.parametrize(("kind", "words"), REFUSED)
def test_an_optimizer_that_cannot_be_saved_is_refused_at_the_start(kind: type, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        build(Quadratic(optimizer=Optimizer(f"tests.tasks.keepers:{kind.__name__}", {})), 0, {})
    assert caught.value.key == "task.optimizer.name"
    assert "\n" not in str(caught.value)


def named(kind: type) -> str:
    return f"{kind.__module__}:{kind.__name__}"


def tried(name: str) -> list[Task]:
    """Of both tasks."""
    if name == "Muon":  # of matrices alone
        return []
    chosen = Optimizer(name, {"lr": 0.01})
    network = Classification(model="mlp", batch_size=5, optimizer=chosen)
    return [build(Quadratic(optimizer=chosen), 0, {}), build(network, 0, pictures(40))]


@pytest.mark.parametrize("kind", [*LOST_LATER, MomentumOfMatrices])
def test_what_an_optimizer_keeps_in_attributes_is_refused_where_there_are_checkpoints(kind: type) -> None:
    bowl, network = tried(named(kind))
    for task in (bowl, network) if kind in LOST_LATER else (network,):
        with pytest.raises(ScenarioError, match=f"^{kind.__name__} keeps something in attributes") as caught:
            task.check_resume()
        assert caught.value.key == "backend.checkpoint"
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*_classes(), *map(named, KEPT)])
def test_an_optimizer_that_is_restored_may_have_checkpoints(name: str) -> None:
    for task in tried(name):
        task.check_resume()


@pytest.mark.parametrize("kind", LOST_LATER)
def test_a_batch_refuses_an_optimizer_that_keeps_something_in_attributes(kind: type) -> None:
    with pytest.raises(ScenarioError, match="remembers more than a state of each parameter"):
        tried(named(kind))[1].batch()


def test_a_run_with_checkpoints_refuses_at_its_start_what_its_optimizer_would_lose(tmp_path: Path) -> None:
    task = QUADRATIC | {"optimizer": {"name": named(SlowInAttributes), "lr": 0.1}}
    backend = {"name": "process", "checkpoint": {"every_updates": 50}}
    with pytest.raises(ScenarioError, match="SlowInAttributes keeps something in attributes that no checkpoint has"):
        execute(scenario(backend=backend, task=task), tmp_path / "run")


def test_trying_an_optimizer_leaves_the_random_generators_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    optimizer(Optimizer("tests.tasks.keepers:Noisy", {}))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tobytes() == before[1]  # type: ignore[union-attr]


SCHEDULES = [None, {"name": "cosine", "length": 3000, "warmup": 100}]


@pytest.mark.parametrize(("kind", "schedule"), list(itertools.product(["CountInGroup", "ChangesItsRate"], SCHEDULES)))
def test_a_resumed_run_has_the_bits_of_one_that_was_not_interrupted(kind: str, schedule: Any, tmp_path: Path) -> None:
    task = QUADRATIC | {"optimizer": {"name": f"tests.tasks.keepers:{kind}", "lr": 0.1}, "schedule": schedule}
    stated = scenario(
        backend={"name": "process", "checkpoint": {"every_updates": 50}}, budget={"minibatches": 2500}, task=task
    )
    execute(stated, tmp_path / "whole")
    interrupted(stated, tmp_path / "parts", 120)
    assert execute(stated, tmp_path / "parts", resume=True)["status"] == "done"
    assert final_params(tmp_path / "parts").tobytes() == final_params(tmp_path / "whole").tobytes()
    assert repeat(stated, tmp_path / "parts").difference is None


def test_a_reset_forgets_what_stands_in_the_groups() -> None:
    task = build(Quadratic(optimizer=Optimizer("tests.tasks.keepers:CountInGroup", {})), 0, {})
    learner = task.learner(0, task.initial())
    for number in range(4):
        learner.minibatch(number)
    learner.reset_momentum()
    anew = task.learner(0, task.initial())
    for each in (learner, anew):
        each.minibatch(0)
    texts = [bytes(each.state()["optimizer.text"].numpy()) for each in (learner, anew)]
    assert json.loads(texts[0]) == json.loads(texts[1])


def test_a_batch_refuses_an_optimizer_that_counts_in_its_groups(tmp_path: Path) -> None:
    task = {"name": "classification", "dataset": "digits", "model": "mlp", "train_samples": 64}
    task["optimizer"] = {"name": f"{CountInGroup.__module__}:CountInGroup"}
    stated = scenario(backend={"name": "sim", "numerics": "batched"}, task=task, workers=2)
    with pytest.raises(ScenarioError, match="remembers more than a state of each parameter"):
        execute(stated, tmp_path / "run")
