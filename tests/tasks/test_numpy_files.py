"""Arrays in `.npy` and `.npz` files are learned from where they lie, and told where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import read_manifest
from asgd_lab.tasks import load
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.samples import pick
from tests.backends.scenarios import scenario
from tests.tasks.configs import Classification

IMAGES = np.random.default_rng(0).integers(256, size=(24, 6, 6), dtype=np.uint8)
LABELS = np.arange(24) % 3
ARRAYS: dict[str, Any] = {
    "train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:9], "test_labels": LABELS[:9],
}  # fmt: skip


def of(folder: Path, **options: Any) -> Data:
    return load(Classification("numpy", str(folder), dataset_options=options))


@pytest.mark.parametrize("how", ["npy", "stored", "compressed"])
def test_arrays_are_read_from_files_and_stay_there_where_they_can(tmp_path: Path, how: str) -> None:
    if how == "npy":
        for part, values in ARRAYS.items():
            np.save(tmp_path / f"{part}.npy", values)
    else:
        {"stored": np.savez, "compressed": np.savez_compressed}[how](tmp_path / "d.npz", **ARRAYS)
    data = of(tmp_path, **({} if how == "npy" else {"file": "d.npz"}))
    assert np.array_equal(data["train_images"].numpy(), IMAGES[:, None])
    assert data["test_labels"].tolist() == LABELS[:9].tolist()
    address, maps = data["train_images"].data_ptr(), Path("/proc/self/maps").read_text().splitlines()
    ranges = [(line, *(int(each, 16) for each in line.split()[0].split("-"))) for line in maps]
    (line,) = (line for line, first, end in ranges if first <= address < end)
    assert (str(tmp_path) in line) == (how != "compressed")


def test_names_channels_behind_columns_of_labels_and_the_standard(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(256, size=(24, 5, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "k.npz", x_train=colours, y_train=LABELS[:, None], x_test=colours[:6], y_test=LABELS[:6, None])
    names = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}
    data = of(tmp_path, file="k.npz", channels="last", standardise=True, **names)
    assert np.array_equal(data["train_images"].numpy(), colours.transpose(0, 3, 1, 2))
    assert data["train_labels"].shape == (24,)
    seen = pick(data, "train", torch.arange(24))
    assert torch.allclose(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(seen.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_real_workers_learn_from_files_and_the_record_has_the_standard(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **ARRAYS)
    task = {"name": "classification", "dataset": "numpy", "data_folder": str(tmp_path), "batch_size": 4,
            "dataset_options": {"file": "d.npz", "standardise": True}}  # fmt: skip
    execute(scenario(task=task, backend="process", workers=2, budget={"minibatches": 8}), tmp_path / "run")
    standard = read_manifest(tmp_path / "run")["inputs"]["data"]["standard"]
    assert standard["mean"] == pytest.approx([IMAGES.mean()])
    assert standard["deviation"] == pytest.approx([IMAGES.std()])


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"train_labels": LABELS[1:]}, {}, r"train_images of \(24, 6, 6\) for labels of \(23,\)"),
        ({"test_images": None}, {}, "has no array 'test_images'"),
        ({}, {"train_images": "train_image"}, "has no array 'train_image'; did you mean 'train_images'"),
        ({"train_images": np.array(["a"] * 24)}, {}, "torch has no type for"),
        ({"train_images": np.array([{}] * 24)}, {}, "cannot be read: ValueError: .*ython objects"),
        ({}, {"flie": "d.npz"}, "numpy takes no 'flie'; did you mean 'file'"),
        ({}, {"channels": "middle"}, "must be first or last; got 'middle'"),
        ({}, {"file": "d.npy"}, "must be a file .npz"),
        ({}, {"file": "e.npz"}, "e.npz cannot be read: No such file or directory"),
        ({"train_images": IMAGES.astype(np.float32)}, {"standardise": True}, "is for pixels, bytes of"),
    ],
)
def test_arrays_that_do_not_fit_are_told_in_one_line(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    np.savez(tmp_path / "d.npz", **{part: each for part, each in {**ARRAYS, **changes}.items() if each is not None})
    with pytest.raises(ScenarioError, match=words) as caught:
        of(tmp_path, **{"file": "d.npz", **options})
    assert "\n" not in str(caught.value)
