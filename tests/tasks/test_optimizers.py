"""Optimizers by torch's own names: all that step on gradients work, and what torch does not accept is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks import build
from asgd_lab.tasks.optimizers import _classes, optimizer
from tests.tasks.configs import Optimizer, Quadratic


@pytest.mark.parametrize("name", [name for name in _classes() if name != "Muon"])
def test_every_optimizer_descends_and_starts_anew_after_a_reset(name: str) -> None:
    task = build(Quadratic(curvature=[1.0] * 20, start=2.0, optimizer=Optimizer(name, {"lr": 0.05})), 0, {})
    params = task.initial()
    learner = task.learner(0, params)
    first = [learner.minibatch(step)[0] for step in range(3)]
    assert first[0] > first[1] > first[2]
    params.copy_(task.initial())
    learner.reset_momentum()
    assert [learner.minibatch(step)[0] for step in range(3)] == first


def test_muon_wants_matrices_and_says_so() -> None:
    with pytest.raises(ScenarioError, match="Muon does not suit this task") as caught:
        build(Quadratic(optimizer=Optimizer("Muon", {})), 0, {})
    assert caught.value.key == "task.optimizer.name"


@pytest.mark.parametrize(
    ("name", "options", "key", "words"),
    [
        ("sgd", {}, "name", "did you mean 'SGD'.*allowed: ASGD"),
        ("adam", {}, "name", "did you mean 'Adam'"),
        ("Optimizer", {}, "name", "no 'Optimizer'"),
        ("LBFGS", {}, "name", "several times a step"),
        ("SparseAdam", {}, "name", "sparse"),
        ("SGD", {"learning_rate": 0.1}, "learning_rate", "takes no 'learning_rate'.*allowed: lr, momentum"),
        ("SGD", {"lr": 0.1, "momentun": 0.9}, "momentun", "did you mean 'momentum'"),
        ("SGD", {"lr": 0.1, "momentum": -1}, "momentum", "Invalid momentum value"),
        ("SGD", {"lr": "fast"}, "lr", "'fast'"),
        ("SGD", {"lr": float("nan")}, "lr", "finite"),
        ("SGD", {"nesterov": True, "lr": 0.1}, "nesterov", "requires a momentum"),
        ("Adam", {"betas": [0.9]}, "betas", "IndexError"),
        ("Adam", {"betas": [0.9, 1.5]}, "betas", "Invalid beta"),
        ("Adam", {"params": [1]}, "params", "takes no 'params'"),
    ],
)
def test_what_torch_does_not_accept_is_named(name: str, options: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        optimizer(Optimizer(name, options))
    assert caught.value.key == f"task.optimizer.{key}"
    assert "\n" not in str(caught.value)


def test_keywords_that_only_clash_together_are_the_optimizers_fault() -> None:
    with pytest.raises(ScenarioError, match="together") as caught:
        optimizer(Optimizer("SGD", {"foreach": True, "fused": True}))
    assert caught.value.key == "task.optimizer"


def test_keywords_reach_torch() -> None:
    made = optimizer(Optimizer("Adam", {"lr": 0.5, "betas": [0.5, 0.75]}))([torch.zeros(1)])
    assert made.defaults["lr"] == 0.5
    assert made.defaults["betas"] == (0.5, 0.75)
