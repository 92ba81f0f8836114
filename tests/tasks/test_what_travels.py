"""Only what is trained and synchronised travels; frozen and local parameters stay with each replica."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asgd_lab.backends.build import build_task
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.model_export import trained
from asgd_lab.record.saved_model import final, final_params
from asgd_lab.tasks.samples import pick
from tests.backends.scenarios import DIGITS, scenario

from .own_classes import Averaged, Plain


class LowRank(nn.Module):
    """LoRA (Hu et al. 2021): a frozen layer and a product of two small matrices."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, 1, bias=False), nn.Linear(1, width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.base(inputs) + self.up(self.down(inputs))
        return found


def lora(num_classes: int, width: int = 64) -> nn.Module:
    return nn.Sequential(nn.Flatten(), LowRank(width), nn.ReLU(), nn.Linear(64, num_classes).requires_grad_(False))


ALONE = 64 + 64  # the trained numbers of 64 * 64 + 64 + 64 * 10 + 10 + these
TASK = {**DIGITS, "model": f"{__name__}:lora"}


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_lora_on_a_frozen_body_costs_its_own_bytes(tmp_path: Path, backend: str) -> None:
    stated = scenario(task=TASK, backend=backend, workers=2)
    task = build_task(stated)
    assert (task.size, task.size_bytes) == (ALONE, 4 * ALONE)
    execute(stated, tmp_path / "run")
    rows = parquet.read_table(tmp_path / "run" / "effects.parquet").to_pylist()
    assert {row["bytes"] for row in rows if row["kind"] in ("push", "fetch") and row["bytes"]} == {4 * ALONE}
    assert final_params(tmp_path / "run").shape == (ALONE,)
    assert final(tmp_path / "run").buffers == {}, "the body has not changed"
    if backend == "process":
        assert repeat(stated, tmp_path / "run").difference is None


def test_a_frozen_body_is_in_the_exported_model_as_it_was_at_the_start(tmp_path: Path) -> None:
    stated = scenario(task=TASK, backend="sim", workers=2)
    summary = execute(stated, tmp_path / "run")
    model = trained(tmp_path / "run")
    start = build_task(stated).network.fresh(torch.device("cpu")).model  # type: ignore[attr-defined]
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, start.get_parameter(name))
        assert same is not ("up" in name or "down" in name)
    data = stated.task.load()
    loss = cross_entropy(model(pick(data, "test", torch.arange(len(data["test_labels"])))), data["test_labels"]).item()
    assert loss == pytest.approx(summary["final"]["test_loss"], rel=1e-5)


def test_an_average_of_the_weights_is_each_replicas_own_and_outlives_a_checkpoint() -> None:
    task = {"name": "own", "task": f"{Averaged.__module__}:Averaged"}
    built = build_task(scenario(task=task, workers=2))
    built.check_resume()
    learners: list[Any] = [built.learner(worker, built.initial()) for worker in range(2)]
    for each in learners:
        each.minibatch(0)
    averages = [each.buffers() for each in learners]
    assert sorted(averages[0]) == [f"ema.{layer}.{part}" for layer in (0, 3) for part in ("bias", "weight")]
    assert not torch.equal(averages[0]["ema.0.weight"], averages[1]["ema.0.weight"])
    assert {f"model.{name}" for name in averages[0]} <= learners[0].state().keys()


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_local_parameters_are_trained_and_never_move(tmp_path: Path, backend: str) -> None:
    task = {"name": "own", "task": f"{Plain.__module__}:Plain", "local": ["3.*"]}
    stated = scenario(task=task, backend=backend, workers=2)
    whole = build_task(scenario(task={**task, "local": []}, workers=2))
    built = build_task(stated)
    assert built.size < whole.size
    execute(stated, tmp_path / "run")
    found = final(tmp_path / "run")
    assert found.params.shape == (built.size,)
    assert sorted(found.buffers) == ["3.bias", "3.weight"], "worker 0's, with which the server's are evaluated"
    if backend == "process":
        assert repeat(stated, tmp_path / "run").difference is None


def test_the_local_layers_of_two_replicas_differ_and_the_others_are_fetched() -> None:
    task = {"name": "own", "task": f"{Plain.__module__}:Plain", "local": ["3.*"]}
    built = build_task(scenario(task=task, workers=2))
    learners: list[Any] = [built.learner(worker, built.initial()) for worker in range(2)]
    for each in learners:
        each.minibatch(0)
    first, second = (each.buffers()["3.weight"] for each in learners)
    assert not torch.equal(first, second)
    learners[1].params.copy_(learners[0].params)
    assert torch.equal(learners[0].parameters["0.weight"], learners[1].parameters["0.weight"])
    assert not torch.equal(learners[0].parameters["3.weight"], learners[1].parameters["3.weight"])


@pytest.mark.parametrize(
    ("patterns", "key", "message"),
    [
        (["head.*"], "task.local.0", "matches no trained parameter; these are 0.weight, 0.bias, 3.weight, 3.bias"),
        (["*"], "task.local", "leaves no parameter to synchronise"),
    ],
)
def test_patterns_that_leave_nothing_or_match_nothing_are_refused(patterns: list[str], key: str, message: str) -> None:
    task = {"name": "own", "task": f"{Plain.__module__}:Plain", "local": patterns}
    with pytest.raises(ScenarioError, match=message.replace("*", ".")) as caught:
        build_task(scenario(task=task))
    assert caught.value.key == key
