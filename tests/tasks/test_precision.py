"""Minibatches in bfloat16: parameters, gradients and evaluations are float32, and no cast outlives its minibatch."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import read_summary
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from asgd_lab.streams import key
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.feeds import walk
from tests.backends.scenarios import QUADRATIC, TIMING
from tests.tasks.configs import Classification, Optimizer, pictures
from tests.whole import sample

STEPS, BATCH, SEED, SAMPLES = 6, 10, 5, 60
HERE = "tests.tasks.test_precision"


class Casting(nn.Module):
    """Casts as its own code says, whatever it is called in."""

    def __init__(self, num_classes: int, **autocast: Any) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 32), nn.Linear(32, num_classes)
        self._autocast = autocast

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", **self._autocast):
            hidden = self.body(images.flatten(1)).relu()
        return self.head(hidden.to(self.head.weight.dtype))


def casting(num_classes: int) -> nn.Module:
    return Casting(num_classes)


def not_casting(num_classes: int) -> nn.Module:
    return Casting(num_classes, enabled=False)


class Doubled(nn.Module):
    """Computes with float64 and with whole numbers on the way, and uses a weight twice."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, num_classes)
        self.register_buffer("scale", torch.full((64,), 0.5, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        ranks = images.flatten(1).argsort(1)
        hidden = self.body(self.body(images.flatten(1)).relu()) + ranks
        return self.head((hidden.double() * self.scale).float() / 64)


class Checkpointed(nn.Module):
    """Computes its activations again in the backward pass."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        hidden: Tensor = images.flatten(1)
        for _ in range(2):
            hidden = checkpoint(lambda inputs: self.body(inputs).relu(), hidden, use_reentrant=False)
        made: Tensor = self.head(hidden)
        return made


def normalised(num_classes: int) -> nn.Module:
    first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3))
    return nn.Sequential(first, nn.Linear(144, num_classes))


def squares(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of outputs that are bfloat16 it stays so."""
    wanted = functional.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    return (outputs - wanted).abs().mean()


def weighted(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    weights = 1.0 + labels
    return (weights * functional.cross_entropy(outputs, labels, reduction="none")).sum(), weights.sum()


MODELS: dict[str, Callable[..., nn.Module]] = {
    "casting": casting, "not_casting": not_casting, "Doubled": Doubled, "normalised": normalised,
    "Checkpointed": Checkpointed,
}  # fmt: skip
LOSSES: dict[str | None, Callable[..., Any]] = {
    None: functional.cross_entropy, "squares": squares,
    "weighted": lambda outputs, labels: torch.div(*weighted(outputs, labels)),
}  # fmt: skip
CASES = [(model, loss, precision) for model in MODELS for loss in LOSSES for precision in ("float32", "bfloat16")]


def plain(model: nn.Module, loss_of: Callable[..., Any], precision: str) -> list[Tensor]:
    """The parameters after a loop that knows nothing of the lab but its order of samples and its seeds."""
    data = pictures(SAMPLES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    order = walk(SEED, 0, SAMPLES, BATCH, torch.device("cpu"), None)
    for step in range(STEPS):
        torch.manual_seed(key(SEED, "model", 0, step))
        optimizer.zero_grad()
        inputs, labels = data["train_images"][order(step)], data["train_labels"][order(step)]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of(model(inputs), labels)
        loss.backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def made(model: str, loss: str | None, precision: str, **more: Any) -> ClassificationTask:
    stated = Classification(
        model=f"{HERE}:{model}", loss=loss and f"{HERE}:{loss}", precision=precision, batch_size=BATCH,
        optimizer=Optimizer("SGD", {"lr": 0.1, "momentum": 0.9}), **more,
    )  # fmt: skip
    return ClassificationTask(stated, SEED, pictures(SAMPLES))


@pytest.mark.parametrize(("model", "loss", "precision"), sample(CASES, 14))
@pytest.mark.parametrize("inside", [False, True], ids=["outside of an autocast", "inside of one that is off"])
def test_a_learner_has_the_bits_of_a_plain_loop(model: str, loss: str | None, precision: str, inside: bool) -> None:
    torch.manual_seed(key(SEED, "initial"))
    expected = plain(MODELS[model](4), LOSSES[loss], precision)
    task = made(model, loss, precision)
    task.check()
    params = task.initial()
    learner = task.learner(0, params)
    with torch.autocast("cpu", enabled=False) if inside else contextlib.nullcontext():
        taken = [learner.minibatch(step) for step in range(STEPS)]
    found = task.network.layout.views(params)
    assert all(map(torch.equal, expected, found))
    assert all(type(loss) is float for loss, _ in taken)
    assert all(each.grad is not None and each.grad.dtype == torch.float32 for each in learner.handles.values())
    assert {each.dtype for each in learner.state().values() if each.is_floating_point()} <= {
        torch.float32, torch.float64
    }  # fmt: skip


@pytest.mark.parametrize("model", ["casting", "normalised", "Doubled"])
def test_bfloat16_is_of_minibatches_alone(model: str) -> None:
    exact, rounded = made(model, None, "float32"), made(model, None, "bfloat16")
    params = exact.initial()
    assert torch.equal(params, rounded.initial())
    assert exact.evaluate(params) == rounded.evaluate(params)
    vectors = [params.clone() for _ in range(2)]
    for task, vector in zip((exact, rounded), vectors, strict=True):
        task.learner(0, vector).minibatch(0)
    assert not torch.equal(*vectors)
    assert torch.allclose(*vectors, atol=0.02)


def test_gradient_sums_and_checkpoints_follow_the_precision() -> None:
    whole = made("normalised", None, "bfloat16")
    whole.check(gradients=True)
    whole.check_resume()
    params, sums = whole.initial(), torch.zeros(whole.size)
    learner = whole.learner(0, params, sums)
    total = torch.zeros_like(sums)
    for step in range(3):
        learner.minibatch(step)
        for name, view in zip(learner.handles, whole.network.layout.views(total), strict=True):
            view += learner.handles[name].grad  # type: ignore[arg-type]
    assert torch.equal(total, sums)
    state = {name: value.clone() for name, value in learner.state().items()}
    other = made("normalised", None, "bfloat16")
    again = params.clone()
    later = other.learner(0, again, torch.zeros(whole.size))
    later.load(state)
    assert [later.minibatch(step) for step in (3, 4)] == [learner.minibatch(step) for step in (3, 4)]
    assert torch.equal(params, again)


TASK = {
    "name": "classification", "dataset": "digits", "train_samples": 200, "batch_size": 8, "model": f"{HERE}:normalised",
    "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}, "precision": "bfloat16",
}  # fmt: skip


def run(out: Path, **parts: Any) -> np.ndarray[Any, Any]:
    stated = {
        "name": "precision", "task": TASK, "algorithm": {"name": "sgd", "n_sync": 4}, "budget": {"minibatches": 12},
        "hardware": {"compute": {"step_s": 0.001}}, **parts,
    }  # fmt: skip
    execute(Scenario.model_validate(stated), out)
    return final_params(out)


@pytest.mark.parametrize(
    ("model", "precision"),
    sample([("casting", "float32"), ("normalised", "bfloat16"), ("casting", "bfloat16"), ("normalised", "float32")], 2),
)
@pytest.mark.xdist_group("process")
def test_all_backends_agree_to_the_bit_whatever_autocast_they_are_called_in(
    tmp_path: Path, model: str, precision: str
) -> None:
    """A run in the caller's process is inside of the caller's autocast; the processes of a real run are in none."""
    task = {**TASK, "model": f"{HERE}:{model}", "precision": precision}
    start = {"minibatches": 3}
    expected = run(tmp_path / "process", task=task, backend="process", warm_start=start)
    for backend in ("inline", "sim"):
        assert np.array_equal(run(tmp_path / backend, task=task, backend=backend, warm_start=start), expected)
        with torch.autocast("cpu", torch.float16, cache_enabled=False), torch.autocast("cpu", enabled=False):
            inside = run(tmp_path / f"{backend} inside", task=task, backend=backend, warm_start=start)
            assert torch.get_autocast_dtype("cpu") == torch.float16
            assert not torch.is_autocast_cache_enabled()
        assert np.array_equal(inside, expected)


@pytest.mark.parametrize("kind", ["quadratic", "timing"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_task_without_a_network_has_no_precision(kind: str, precision: str) -> None:
    task: dict[str, Any] = {"quadratic": QUADRATIC, "timing": TIMING}[kind]
    with pytest.raises(ValueError, match=r"precision"):
        Scenario.model_validate({
            "name": "precision", "task": {**task, "precision": precision}, "budget": {"minibatches": 3},
            "algorithm": {"name": "asgd", "n_sync": 1}, "backend": "inline",
        })  # fmt: skip


def test_batched_numerics_refuse_bfloat16_in_one_line_and_auto_does_without(tmp_path: Path) -> None:
    task = {**TASK, "model": "mlp"}
    with pytest.raises(ScenarioError, match=r"^cannot be batched: the task has precision bfloat16; use sequential$"):
        run(tmp_path / "batched", task=task, backend={"name": "sim", "numerics": "batched"})
    one = run(tmp_path / "auto", task=task, backend={"name": "sim", "numerics": "auto"})
    assert "precision bfloat16" in read_summary(tmp_path / "auto")["numerics"]["because"]
    assert np.array_equal(one, run(tmp_path / "sequential", task=task, backend="sim"))


def test_a_model_that_only_trains_in_float32_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.body = nn.Linear(64, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            answers: Tensor = self.body(images.flatten(1))
            return torch.linalg.lu_factor(answers.T @ answers)[0] + answers[:4]

    monkeypatch.setitem(sys.modules, "strict", types.ModuleType("strict"))
    sys.modules["strict"].Strict = Strict  # type: ignore[attr-defined]
    stated = Classification(model="strict:Strict", precision="bfloat16", batch_size=4)
    with pytest.raises(ScenarioError, match=r"cannot learn from inputs of \(1, 8, 8\)") as caught:
        ClassificationTask(stated, 0, pictures(16)).check()
    assert caught.value.key == "task.model"
    assert "\n" not in str(caught.value)
