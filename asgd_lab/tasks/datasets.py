"""Images and labels as tensors, read once and then only indexed; no file is copied on disk.

Images are bytes (N, C, H, W), which minibatches standardise, or float32. The order of samples belongs to the learners.
In a composed data set each sample is K images of one channel, stacked as channels: `train_members` (N, K) holds their
indices, and the decimal digits of the sample's class are theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import asgd_lab.tasks.array_files as array_files
import asgd_lab.tasks.csv_files as csv_files
import asgd_lab.tasks.image_folders as image_folders
import asgd_lab.tasks.numpy_files as numpy_files
import asgd_lab.tasks.own_data as own_data
import asgd_lab.tasks.torchvision_sets as torchvision_sets
from asgd_lab.errors import ScenarioError, among
from asgd_lab.streams import generator
from asgd_lab.task_keys.networks import ClassificationKeys
from asgd_lab.tasks.base import Data, check_free_memory
from asgd_lab.tasks.idx_files import Pixels
from asgd_lab.tasks.mnist_files import fashion_mnist, in_folder
from asgd_lab.tasks.places import folders

# Mean and deviation of a training pixel. Constants, because the last bits of a sum depend on the number of threads.
_STANDARDS = {
    "digits": (4.885, 6.012),
    "fashion-mnist": (72.94, 90.02),
    "mnist": (33.32, 78.57),
    "kmnist": (48.91, 88.82),
}
_COMPOSED_TRAINING, _COMPOSED_TEST = 1_000_000, 2_000
_DIGITS = Path(__file__).with_name("digits.csv.gz")
_DIGITS_TRAINING = 1437  # four fifths of the 1,797


def read(config: ClassificationKeys) -> Data:
    """Tensors train_images, train_labels, test_images, test_labels; our own data have int64 labels from 0."""
    name, folder, samples = config.dataset, config.data_folder, config.train_samples
    if ":" in name:
        return own_data.made_by(name, config.dataset_options, samples)
    if name in _OF_OPTIONS:
        return _OF_OPTIONS[name](folder, config.dataset_options, samples)
    if name in torchvision_sets.SETS:
        data = torchvision_sets.read(name, folders(folder))
        own_data.check_samples(name, samples, len(data["train_labels"]))
        return {part: each[:samples] if part.startswith("train") else each for part, each in data.items()}
    if name in _COMPOSED:
        return _composed(config, _COMPOSED[name])
    if name not in _DATASETS:
        message = f"unknown dataset '{name}'{among(name, KNOWN)}"
        raise ScenarioError.at("task.dataset", message)
    arrays = _DATASETS[name](folder)
    own_data.check_samples(name, samples, len(arrays["train_labels"]))
    for part in ("train_images", "train_labels"):
        arrays[part] = arrays[part][:samples]
    return _standardised(name, arrays)


def _standardised(name: str, arrays: dict[str, Pixels]) -> Data:
    """Pixels as they are, (N, 1, H, W), and int64 labels; `samples.pick` standardises each minibatch."""

    def tensor(part: str, values: Pixels) -> Tensor:
        found = array_files.tensor("task.dataset", part, values)
        return found.unsqueeze(1) if part.endswith("images") else found.to(torch.int64)

    found = {part: tensor(part, values) for part, values in arrays.items()}
    return found | {"standard": torch.tensor(_STANDARDS[name]).view(2, 1)}


def input_standard(data: Data) -> dict[str, Tensor] | None:
    """`mean` and `deviation`, such that the model receives (inputs - mean) / deviation for raw inputs (B, ...).

    Raw inputs are a table's columns, (B, columns), or pixels from 0 to 255, (B, C, H, W). For a folder of images the
    mean is that of whole images (3, R, R), to be cropped as they are. None if the model receives inputs as stored.
    """
    if "mean_image" in data:
        return {"mean": data["mean_image"], "deviation": torch.ones(())}
    found = data.get("standardised")
    if "train_members" in data:
        found = torch.tensor(_STANDARDS["fashion-mnist"])
    elif "standard" in data:
        found = data["standard"].view(2, -1, 1, 1)
    return None if found is None else {"mean": found[0].clone(), "deviation": found[1].clone()}


def _composed(config: ClassificationKeys, count: int) -> Data:
    """Samples of `count` images of Fashion-MNIST at half their resolution, in 10 to the power of `count` classes.

    The samples are drawn from all 3.6e9 pairs or 2.2e14 triples, the same ones for every seed.
    """
    samples = {"train": config.train_samples or _COMPOSED_TRAINING, "test": _COMPOSED_TEST}
    check_free_memory("task.train_samples", "are too many: their members take", samples["train"] * (24 * count + 16))
    data = _standardised("fashion-mnist", fashion_mnist(config.data_folder))
    mean, deviation = data.pop("standard")
    for split, number in samples.items():
        classes = data[f"{split}_labels"]
        data[f"{split}_images"] = torch.nn.functional.avg_pool2d(
            data[f"{split}_images"].to(torch.float32).sub_(mean).div_(deviation), 2
        )
        members = generator(0, "composed", split, count).integers(len(classes), size=(number, count))
        data[f"{split}_members"] = torch.from_numpy(members)
        digits = 10 ** torch.arange(count - 1, -1, -1)
        data[f"{split}_labels"] = (classes[data[f"{split}_members"]] * digits).sum(1)
    return data


def _digits() -> dict[str, Pixels]:
    """The 1,797 digits of 8 by 8 pixels in digits.csv.gz, split by a fixed permutation.

    They are the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository 1998 (CC BY 4.0), in the file that scikit-learn has.
    """
    table = np.loadtxt(_DIGITS, delimiter=",", dtype=np.uint8)
    table = table[generator(0, "digits").permutation(len(table))]
    pixels, classes = table[:, :-1].reshape(-1, 8, 8), np.ascontiguousarray(table[:, -1])
    n = _DIGITS_TRAINING
    return {
        "train_images": pixels[:n],
        "train_labels": classes[:n],
        "test_images": pixels[n:],
        "test_labels": classes[n:],
    }


_DATASETS: dict[str, Callable[[str | None], dict[str, Pixels]]] = {
    "digits": lambda _: _digits(),
    "fashion-mnist": fashion_mnist,
    "mnist": functools.partial(in_folder, "mnist"),
    "kmnist": functools.partial(in_folder, "kmnist"),
}
_COMPOSED = {"fashion-mnist-pairs": 2, "fashion-mnist-triples": 3}
_OF_OPTIONS: dict[str, Callable[[str | None, Mapping[str, Any], int | None], Data]] = {
    "image-folder": image_folders.read,
    "csv": csv_files.read,
    "numpy": numpy_files.read,
}
KNOWN = (*_DATASETS, *_COMPOSED, *torchvision_sets.SETS, *_OF_OPTIONS)
