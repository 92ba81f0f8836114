"""A run that starts from another's end, or from a checkpoint of it, starts with what training wrote into buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asgd_lab.backends.inputs import inputs
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record import checkpoints, saved_model
from asgd_lab.scenario import Scenario
from tests.cli.harness import asgd_lab


class Centred(nn.Module):
    """Inputs less their running mean, which the model keeps in a buffer of its own."""

    mean: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.head = nn.Linear(4, num_classes)

    def forward(self, inputs: Tensor) -> Any:
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(inputs.mean(0), 0.2)
        return self.head(inputs - self.mean)


class Other(Centred):
    another: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("another", torch.ones(1))

    def forward(self, inputs: Tensor) -> Any:
        self.another += self.training
        return super().forward(inputs)


def data() -> dict[str, Tensor]:
    labels = torch.arange(64) % 2
    inputs = 20 + torch.randn(64, 4, generator=torch.Generator().manual_seed(1)) + 3 * labels[:, None]
    return {"train_images": inputs, "train_labels": labels, "test_images": inputs, "test_labels": labels}


def stated(model: str, backend: Any, lr: float, **more: Any) -> Any:
    task = {
        "name": "classification", "dataset": f"{__name__}:data", "model": f"{__name__}:{model}", "batch_size": 8,
        "optimizer": {"name": "SGD", "lr": lr},
    }  # fmt: skip
    return Scenario.model_validate({
        "name": model, "task": task, "algorithm": {"name": "asgd", "n_sync": 4}, "workers": 2, "backend": backend,
        "budget": {"minibatches": 160}, "hardware": {"compute": {"step_s": 0.001}}, **more,
    })  # fmt: skip


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_warm_start_from_a_run_has_its_buffers(tmp_path: Path, backend: str) -> None:
    before = execute(stated("Centred", backend, 0.1), tmp_path / "first")["final"]
    assert before["test_error"] < 0.2
    still = stated("Centred", backend, 0.0, warm_start={"run": str(tmp_path / "first")})
    after = execute(still, tmp_path / "second")["final"]
    assert after["test_loss"] == pytest.approx(before["test_loss"], rel=0.2), "its mean moves on a little"
    assert after["test_error"] < 0.2


def test_a_warm_start_from_a_checkpoint_has_its_buffers(tmp_path: Path) -> None:
    kept = {"name": "process", "checkpoint": {"every_updates": 10, "keep": 1}}
    before = execute(stated("Centred", kept, 0.1), tmp_path / "first")["final"]
    (checkpoint,) = checkpoints.all_of(tmp_path / "first")
    after = execute(stated("Centred", "sim", 0.0, warm_start={"run": str(checkpoint)}), tmp_path / "second")["final"]
    assert after["test_loss"] < before["test_loss"] + 1


def test_a_warm_start_from_another_model_is_refused(tmp_path: Path) -> None:
    execute(stated("Other", "sim", 0.1), tmp_path / "first")
    with pytest.raises(ScenarioError, match=r"is of another model: .* has no buffer another"):
        execute(stated("Centred", "sim", 0.1, warm_start={"run": str(tmp_path / "first")}), tmp_path / "second")


def test_replay_evaluates_the_last_version_again(tmp_path: Path) -> None:
    execute(stated("Centred", "process", 0.1), tmp_path / "run")
    said = asgd_lab("replay", tmp_path / "run", "--trust")
    assert said.status == 0, said
    assert "its last evaluation was repeated with the recorded buffers of worker 0" in " ".join(said.out.split())


def test_other_buffers_are_another_start(tmp_path: Path) -> None:
    for name, shift in (("one", 0.0), ("other", 1.0)):
        saved_model.write(tmp_path / _made(tmp_path / name), np.zeros(4, np.float32), {"mean": np.full(4, shift)})
    digests = [
        inputs(stated("Centred", "sim", 0.1, warm_start={"run": str(tmp_path / name)}))["warm_start"]["params_sha256"]
        for name in ("one", "other")
    ]
    assert digests[0] != digests[1]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
