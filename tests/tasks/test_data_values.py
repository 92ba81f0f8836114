"""Values that no run can learn from are told before it starts: nan, infinities, and labels far off all others."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks import build, load
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.data_checks import label_doubts
from tests.cli.harness import asgd_lab
from tests.tasks.configs import Classification

CHOSEN: Data = {}


def data() -> Data:
    return dict(CHOSEN)


def tolerant(num_classes: int) -> nn.Module:
    class Tolerant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Linear(3, num_classes)

        def forward(self, inputs: Tensor) -> Tensor:
            found: Tensor = self.inside(inputs.nan_to_num(0.0, 0.0, 0.0))
            return found

    return Tolerant()


def skipping(outputs: Tensor, labels: Tensor) -> Tensor:
    known = labels.isfinite()
    return ((outputs[:, 0] - labels.nan_to_num())[known] ** 2).sum() / known.sum().clamp(min=1)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("values_of_mine")
    vars(module).update(data=data, tolerant=tolerant, skipping=skipping)
    monkeypatch.setitem(sys.modules, "values_of_mine", module)
    CHOSEN.clear()
    CHOSEN.update({f"{split}_{part}": value.clone() for split in ("train", "test")
                   for part, value in (("images", torch.rand(30, 3)), ("labels", torch.arange(30) % 3))})  # fmt: skip


def built(**keys: Any) -> Any:
    config = Classification("values_of_mine:data", batch_size=4, **keys)
    return build(config, 0, load(config))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["train_images", "test_images"])
def test_a_value_that_is_not_finite_is_told_with_its_sample(part: str, value: float) -> None:
    CHOSEN[part][17, 1] = value
    with pytest.raises(ScenarioError, match=rf"{part} has nan or an infinity in sample 17 \(from 0\)") as caught:
        built()
    assert (caught.value.key, "\n" in str(caught.value)) == ("task.dataset", False)


def test_a_model_and_a_loss_may_know_what_to_do_with_nan() -> None:
    CHOSEN["train_images"][17, 1] = float("nan")
    built(model="values_of_mine:tolerant")
    for split in ("train", "test"):
        CHOSEN[f"{split}_labels"] = torch.rand(30)
        CHOSEN[f"{split}_labels"][5] = float("nan")
    built(model="values_of_mine:tolerant", loss="values_of_mine:skipping")


def test_a_label_far_off_is_told_before_a_network_is_made_for_it() -> None:
    for split in ("train", "test"):
        kept = CHOSEN[f"{split}_labels"].clone()
        CHOSEN[f"{split}_labels"][9] = 10**9
        with pytest.raises(
            ScenarioError, match=rf"{split}_labels has 1,000,000,000 in sample 9.*1,000,000,001 outputs"
        ):
            built()
        CHOSEN[f"{split}_labels"] = kept
    assert not built().doubts
    CHOSEN["train_labels"][9] = 255
    assert any("the largest label is 255, and the next one 2: the network has 256" in line for line in built().doubts)


@pytest.mark.parametrize(
    ("labels", "is_doubted"),
    [([0, 1], False), ([1], True), ([0, 0], True), ([0, 1, 2, 255], True), ([-100, 3], True)],
)
def test_a_gap_below_the_largest_label_or_a_single_one_is_doubted(labels: list[int], is_doubted: bool) -> None:
    assert bool(list(label_doubts(torch.tensor(labels)))) == is_doubted


def test_nan_in_a_file_is_one_line_at_validate(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 3), np.float32)
    images[33, 2] = np.nan
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}_images.npy", images)
        np.save(tmp_path / f"{split}_labels.npy", np.arange(40) % 2)
    path = tmp_path / "s.yaml"
    path.write_text(
        f"name: s\ntask: {{name: classification, dataset: numpy, data_folder: {tmp_path}, batch_size: 4}}\n"
        "algorithm: {name: asgd, n_sync: 2}\nworkers: 2\nbudget: {minibatches: 8}\nbackend: inline\n"
    )
    said = asgd_lab("validate", path)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert "task.dataset: train_images has nan or an infinity in sample 33" in said.err
