"""Image data sets of torchvision by name, from files as torchvision unpacks them; nothing is downloaded.

CIFAR-10 and CIFAR-100 (Krizhevsky 2009), SVHN (Netzer et al. 2011), STL-10 (Coates et al. 2011), USPS (Hull 1994),
QMNIST (Yadav and Bottou 2019) and EMNIST (Cohen et al. 2017). Pixels are bytes (N, C, H, W). Their mean and deviation
in each channel are those of all training pixels; sums of whole numbers have no rounding.
"""

from __future__ import annotations

import bz2
import functools
import math
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.array_files import numbers, tensor
from asgd_lab.tasks.base import Data, check_free_memory, one_line
from asgd_lab.tasks.idx_files import idx
from asgd_lab.tasks.idx_files import numbers as idx_numbers

_LONGEST_LINE, _LINES_TOGETHER = 10_000, 1000  # of USPS, whose lines have 256 numbers
Array = npt.NDArray[Any]
Split = tuple[Array, Array]
"""Images (N, C, H, W) and labels (N,)."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Files of a data set, below a folder or in it, and their reader."""

    below: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[list[Path]], Split]


@dataclass(frozen=True, slots=True)
class _Set:
    call: str  # of torchvision's class
    layouts: tuple[_Layout, ...]


def read(name: str, folders: Sequence[Path]) -> Data:
    """The data of `SETS` by that name, from the first of the folders that has all files."""
    found, missing = SETS[name], ""
    for folder in folders:
        for layout in found.layouts:
            for base in (folder / layout.below, folder):
                paths = {each: _present(base, each) for each in (*layout.train, *layout.test)}
                if None not in paths.values():
                    splits = {"train": layout.train, "test": layout.test}
                    return _data(
                        {split: [_only(paths[each]) for each in files] for split, files in splits.items()}, layout
                    )
                if any(paths.values()) and not missing:
                    lacks = next(each for each, path in paths.items() if path is None)
                    missing = f"; {base} has no {lacks}"
    layout = found.layouts[0]
    message = (
        f"no {name} in {', '.join(map(str, folders))}{missing}: its files {', '.join((*layout.train, *layout.test))} "
        f"must lie in task.data_folder/{layout.below}; torchvision.datasets.{found.call} puts them there"
    )
    raise ScenarioError.at("task.data_folder", message)


def _present(base: Path, name: str) -> Path | None:
    return next((path for path in (base / name, base / f"{name}.gz") if path.is_file()), None)


def _only(path: Path | None) -> Path:
    assert path is not None
    return path


def _data(paths: dict[str, list[Path]], layout: _Layout) -> Data:
    data = Data()
    for split, files in paths.items():
        where = ", ".join(map(str, files))
        try:
            images, labels = layout.read(files)
            if images.ndim != 4 or not len(images) or labels.shape != images.shape[:1] or images.dtype != np.uint8:
                raise ValueError(f"images of {images.shape} {images.dtype} for labels of {labels.shape}")
        except ScenarioError:
            raise
        except Exception as error:  # a damaged file may raise anything, from several libraries
            raise ScenarioError.at("task.data_folder", f"{where} cannot be read: {one_line(error)}") from error
        data[f"{split}_images"] = tensor("task.data_folder", where, images)
        data[f"{split}_labels"] = torch.from_numpy(labels.astype(np.int64))
    return data | {"standard": pixel_standard(data["train_images"])}


def pixel_standard(images: Tensor) -> Tensor:
    """Mean and deviation (2, C) of bytes (N, C, H, W) in each channel; a constant one has deviation 1."""
    sums = np.zeros((2, images.shape[1]), np.int64)
    for part in torch.split(images, max(1, 2**22 // max(1, images[:1].numel()))):
        pixels = part.to(torch.int64)
        sums += np.stack([pixels.sum((0, 2, 3)).numpy(), (pixels * pixels).sum((0, 2, 3)).numpy()])
    mean, square = sums / (images.numel() // images.shape[1])
    deviation = np.sqrt(np.maximum(0.0, square - mean**2))
    return torch.from_numpy(np.stack([mean, np.where(deviation > 0, deviation, 1.0)]).astype(np.float32))


# ---------------------------------------------------------------------- readers


_OF_ARRAYS: dict[str, Any] = {"_reconstruct": np.zeros(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}


class _Arrays(pickle.Unpickler):
    """Unpickles dicts, lists, texts and arrays, and nothing else: other pickles may run any code."""

    def __init__(self, opened: IO[bytes]) -> None:
        super().__init__(opened, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _OF_ARRAYS:
            return _OF_ARRAYS[name]
        if (module, name) == ("_codecs", "encode"):  # bytes in a pickle of protocol 2
            return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays are unpickled")


def _check_room(files: list[Path], size_bytes: int) -> None:
    """A `ScenarioError` if the files' arrays, and a copy in our order, do not fit into memory."""
    what = f"is too large: {files[0]}{' and its like' if len(files) > 1 else ''} take, twice,"
    check_free_memory("task.dataset", what, 2 * size_bytes)


def _pickled(label: str, files: list[Path]) -> Split:
    _check_room(files, sum(path.stat().st_size for path in files))
    found = []
    for path in files:
        with open(path, "rb") as opened:
            found.append(_Arrays(opened).load())
    images = np.concatenate([np.asarray(each["data"]).reshape(-1, 3, 32, 32) for each in found])
    return images, np.concatenate([np.asarray(each[label]) for each in found])


def _rows(labels: int, files: list[Path]) -> Split:
    """Rows of some labels, of which the last one counts, and 3 x 32 x 32 pixels."""
    width = labels + 3 * 32 * 32
    parts = [numbers("task.data_folder", path, "uint8").reshape(-1, width) for path in files]
    if len(parts) > 1:
        _check_room(files, sum(part.nbytes for part in parts))
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, labels - 1]


def _matlab(files: list[Path]) -> Split:
    from scipy.io import loadmat, whosmat  # imported here: few runs need it

    stated = whosmat(files[0])  # compressed or not: name, shape and type of each array
    _check_room(files, sum(math.prod(shape) * (1 if kind.endswith("int8") else 8) for _, shape, kind in stated))
    found = loadmat(files[0])
    labels = found["y"].reshape(-1)
    return np.ascontiguousarray(found["X"].transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels)


def _stl(files: list[Path]) -> Split:
    images, labels = (numbers("task.data_folder", path, "uint8") for path in files)
    return images.reshape(-1, 3, 96, 96).transpose(0, 1, 3, 2), _from_zero(labels)


def _usps(files: list[Path]) -> Split:
    """Lines of a label from 1 and 256 values from -1 to 1, as `1:-0.9`."""
    pixels, labels = bytearray(), list[int]()
    with bz2.open(files[0], "rt", encoding="ascii") as opened:
        while line := opened.readline(_LONGEST_LINE):
            if line.isspace():
                continue
            label, *values = (float(each.rpartition(":")[2]) for each in line.split())
            pixels += ((np.array(values) + 1) / 2 * 255).astype(np.uint8).tobytes()  # as torchvision rounds
            labels.append(int(label))
            if len(labels) % _LINES_TOGETHER == 0:  # the number of lines is not stated anywhere
                _check_room(files, _LINES_TOGETHER * 256)
    images = np.frombuffer(pixels, np.uint8).reshape(len(labels), 1, 16, 16)
    return images, _from_zero(np.array(labels))


def _from_zero(labels: Array) -> Array:
    """Classes from 0 of classes from 1."""
    return labels.astype(np.int64) - 1


def _idx(of_labels: int, files: list[Path]) -> Split:
    labels = idx_numbers(files[1], of_labels)
    images = idx(files[0])
    return images.reshape(len(images), 1, *images.shape[1:]), labels if labels.ndim == 1 else labels[:, 0]


def _emnist(split: str) -> _Set:
    train, test = (
        tuple(f"emnist-{split}-{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
        for part in ("train", "test")
    )
    layout = _Layout("EMNIST/raw", train, test, functools.partial(_idx, 8))
    return _Set(f"EMNIST(FOLDER, '{split}', download=True)", (layout,))


def _batches(suffix: str, count: Iterable[int] = range(1, 6)) -> tuple[str, ...]:
    return tuple(f"data_batch_{number}{suffix}" for number in count)


SETS = {
    "cifar10": _Set("CIFAR10(FOLDER, download=True)", (
        _Layout("cifar-10-batches-py", _batches(""), ("test_batch",), functools.partial(_pickled, "labels")),
        _Layout("cifar-10-batches-bin", _batches(".bin"), ("test_batch.bin",), functools.partial(_rows, 1)),
    )),
    "cifar100": _Set("CIFAR100(FOLDER, download=True)", (
        _Layout("cifar-100-python", ("train",), ("test",), functools.partial(_pickled, "fine_labels")),
        _Layout("cifar-100-binary", ("train.bin",), ("test.bin",), functools.partial(_rows, 2)),
    )),
    "svhn": _Set("SVHN(FOLDER, SPLIT, download=True), for the splits 'train' and 'test',", (
        _Layout("", ("train_32x32.mat",), ("test_32x32.mat",), _matlab),
    )),
    "stl10": _Set("STL10(FOLDER, download=True)", (
        _Layout("stl10_binary", ("train_X.bin", "train_y.bin"), ("test_X.bin", "test_y.bin"), _stl),
    )),
    "usps": _Set("USPS(FOLDER, TRAIN, download=True), for TRAIN True and False,", (
        _Layout("", ("usps.bz2",), ("usps.t.bz2",), _usps),
    )),
    "qmnist": _Set("QMNIST(FOLDER, WHAT, download=True), for WHAT 'train' and 'test',", (
        _Layout("QMNIST/raw", ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
                ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"), functools.partial(_idx, 12)),
    )),
    **{f"emnist-{split}": _emnist(split) for split in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")},
}  # fmt: skip
"""The data sets by their names in a scenario."""
