"""Stand-ins for what a scenario states about a task, with small defaults, and small data."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.scenario import tasks as scenario
from asgd_lab.task_keys.networks import SharedData
from asgd_lab.tasks.base import CPU, Data
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.feeds import Indexed, Order
from asgd_lab.tasks.network import NetworkLearner


@dataclass
class Optimizer:
    name: str = "SGD"
    options: dict[str, Any] = field(default_factory=lambda: {"lr": 0.1})


@dataclass
class Quadratic:
    curvature: list[float] = field(default_factory=lambda: [1.0, 0.5])
    noise: float = 0.0
    batch_size: int = 1
    start: float = 1.0
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Any = None
    name: str = "quadratic"

    has_data, load, make = scenario.Quadratic.has_data, scenario.Quadratic.load, scenario.Quadratic.make
    data_keys = scenario.Quadratic.data_keys


@dataclass
class Classification:
    dataset: str = "digits"
    data_folder: str | None = None
    model: str = "mlp"
    model_options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 10
    optimizer: Optimizer = field(default_factory=Optimizer)
    train_samples: int | None = None
    dataset_options: dict[str, Any] = field(default_factory=dict)
    loss: str | None = None
    data: Any = field(default_factory=lambda: SharedData(name="shared"))
    schedule: Any = None
    clip: Any = None
    batch_norm: str = "local"
    biases: Any = None
    precision: str = "float32"
    local: list[str] = field(default_factory=list)
    size_bytes: int | None = None
    name: str = "classification"

    has_data, load, make = scenario.Classification.has_data, scenario.Classification.load, scenario.Classification.make
    data_keys = scenario.Classification.data_keys


@dataclass
class Timing:
    size_bytes: int = 1000
    step_s: float = 0.1
    name: str = "timing"

    has_data, load, make = scenario.Timing.has_data, scenario.Timing.load, scenario.Timing.make
    data_keys = scenario.Timing.data_keys


def ordered(
    task: ClassificationTask, order: Order, worker: int, params: Tensor, gradients: Tensor | None = None
) -> NetworkLearner:
    """A learner that takes the samples in that order."""
    feed, labels = task._data.source(CPU).feed(0, worker, order), task._data.on(CPU)["train_labels"]
    return task.bound(worker, params, gradients, Indexed(order, feed, labels))


def pictures(samples: int = 60, shape: tuple[int, int, int] = (1, 8, 8), classes: int = 4, seed: int = 0) -> Data:
    """Random images in which each class has its own mean, so that they can be learned."""
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        noise = torch.randn(count, *shape, generator=generator)
        return noise + (labels - classes / 2).view(-1, 1, 1, 1), labels

    train, test = split(samples), split(2 * classes)
    return {"train_images": train[0], "train_labels": train[1], "test_images": test[0], "test_labels": test[1]}


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """An IDX file of unsigned bytes, packed where its name ends in .gz."""
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_fashion(folder: Path, mark: int, suffix: str = ".gz") -> None:
    """Six training and four test images of 5 by 5 whose every pixel is `mark`."""
    for split, count in (("train", 6), ("t10k", 4)):
        write_idx(folder / f"{split}-images-idx3-ubyte{suffix}", np.full((count, 5, 5), mark, np.uint8))
        write_idx(folder / f"{split}-labels-idx1-ubyte{suffix}", (np.arange(count) % 3).astype(np.uint8))
