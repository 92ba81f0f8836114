"""Images and labels as tensors, read once and then only indexed; no file is copied on disk.

Images are bytes (N, C, H, W), which minibatches standardise, or float32. The order of samples belongs to the learners.
In a composed data set each sample is K images of one channel, stacked as channels: `train_members` (N, K) holds their
indices, and the decimal digits of the sample's class are theirs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import asgd_lab.tasks.csv_files as csv_files
import asgd_lab.tasks.image_folders as image_folders
from asgd_lab.errors import ScenarioError, meant
from asgd_lab.streams import generator, key
from asgd_lab.tasks.base import Data, one_line
from asgd_lab.tasks.code_imports import imported
from asgd_lab.tasks.free_memory import check_free_memory
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.idx_files import Pixels, idx
from asgd_lab.tasks.samples import chunks
from asgd_lab.tasks.torch_settings import preserving_settings
from asgd_lab.tasks.torchvision_import import torchvision

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
# Mean and deviation of a training pixel. Constants, because the last bits of a sum depend on the number of threads.
_STANDARDS = {
    "digits": (4.885, 6.012),
    "fashion-mnist": (72.94, 90.02),
    "mnist": (33.32, 78.57),
    "kmnist": (48.91, 88.82),
}
_FOLDERS = {"mnist": "MNIST", "kmnist": "KMNIST"}  # torchvision's, for data that are never downloaded
_COMPOSED_TRAINING, _COMPOSED_TEST = 1_000_000, 2_000
KEYS = "train_keys"  # an optional entry of a user's data
_DIGITS_TRAINING = 1437  # four fifths of the 1,797


class DatasetConfig(Protocol):
    """The part of a scenario that names the data."""

    @property
    def dataset(self) -> str:
        """One of `DATASETS`, or package.module:factory."""
        ...

    @property
    def data_folder(self) -> str | None:
        """The first folder to search."""
        ...

    @property
    def dataset_options(self) -> Mapping[str, Any]:
        """Keywords for the user's own factory of data."""
        ...

    @property
    def train_samples(self) -> int | None:
        """The number of training samples to use, the first ones; None: all."""
        ...


def read(config: DatasetConfig) -> Data:
    """Tensors train_images, train_labels, test_images, test_labels; our own data have int64 labels from 0."""
    if ":" in config.dataset:
        return _users(config)
    known = [*DATASETS, *COMPOSED, FOLDER, CSV]
    if config.dataset not in known:
        message = f"unknown dataset '{config.dataset}'{meant(config.dataset, known)}; allowed: {', '.join(known)}"
        raise ScenarioError.at("task.dataset", message)
    if config.dataset == CSV:
        return csv_files.read(config.data_folder, config.dataset_options, config.train_samples)
    if config.dataset == FOLDER:
        return image_folders.read(config.data_folder, config.dataset_options, config.train_samples)
    if config.dataset in COMPOSED:
        return _composed(config, COMPOSED[config.dataset])
    arrays = DATASETS[config.dataset](config)
    _check_samples(config, len(arrays["train_labels"]))
    for part in ("train_images", "train_labels"):
        arrays[part] = arrays[part][: config.train_samples]
    return _standardised(config.dataset, arrays)


def _standardised(name: str, arrays: dict[str, Pixels]) -> Data:
    """Pixels as they are, (N, 1, H, W), and int64 labels; `samples.pick` standardises each minibatch."""

    def tensor(part: str, values: Pixels) -> Tensor:
        found = torch.from_numpy(values)
        return found.unsqueeze(1) if part.endswith("images") else found.to(torch.int64)

    found = {part: tensor(part, values) for part, values in arrays.items()}
    return found | {"standard": torch.tensor(_STANDARDS[name]).view(2, 1)}


def _composed(config: DatasetConfig, count: int) -> Data:
    """Samples of `count` images of Fashion-MNIST at half their resolution, in 10 to the power of `count` classes.

    The samples are drawn from all 3.6e9 pairs or 2.2e14 triples, the same ones for every seed.
    """
    samples = {"train": config.train_samples or _COMPOSED_TRAINING, "test": _COMPOSED_TEST}
    check_free_memory("task.train_samples", "are too many: their members take", samples["train"] * (24 * count + 16))
    data = _standardised("fashion-mnist", _fashion_mnist(config))
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


def _check_samples(config: DatasetConfig, samples: int) -> None:
    if config.train_samples is not None and config.train_samples > samples:
        message = f"{config.train_samples} is more than the {samples} training samples of {config.dataset}"
        raise ScenarioError.at("task.train_samples", message)


def _users(config: DatasetConfig) -> Data:
    """The user's own data, converted by `_kept`: inputs and labels of any shape, samples in the first dimension."""
    name = config.dataset
    factory = imported("task.dataset", name, f"it returns a dict of {', '.join(_FILES)}")
    try:
        with preserving_generators(), preserving_settings():
            seed_all(key(0, "data"))  # the same data for every seed of the scenario
            made = factory(**config.dataset_options)
    except Exception as error:
        raise ScenarioError.at("task.dataset", f"{name} raised {one_line(error)}") from error
    if isinstance(made, dict):
        arrays = {part: from_numpy(name, value) for part, value in made.items() if isinstance(value, np.ndarray)}
        made = {**made, **arrays}
    if (
        not isinstance(made, dict)
        or set(made) - {KEYS} != set(_FILES)
        or not all(isinstance(v, Tensor) for v in made.values())
    ):
        found = sorted(map(str, made)) if isinstance(made, dict) else type(made).__name__
        message = f"{name} returned {found}; it must be a dict of tensors or arrays {', '.join(_FILES)}"
        raise ScenarioError.at("task.dataset", message)
    for part, value in made.items():
        if value.layout != torch.strided or value.is_quantized:
            raise ScenarioError.at("task.dataset", f"{name}: {part} is {value.layout}; it must be a dense tensor")
    for split in ("train", "test"):
        images, labels = made[f"{split}_images"], made[f"{split}_labels"]
        if not images.dim() or not labels.dim() or not len(labels) or len(images) != len(labels):
            message = f"{name} has {split}_images of {tuple(images.shape)} for labels of {tuple(labels.shape)}"
            raise ScenarioError.at("task.dataset", f"{message}; both must have samples in their first dimension")
    keys = made.get(KEYS)
    if keys is not None and (keys.shape != made["train_labels"].shape[:1] or keys.dtype not in _WHOLE):
        message = f"{name} has {KEYS} of {tuple(keys.shape)} {keys.dtype}; it must be a whole number for each sample"
        raise ScenarioError.at("task.dataset", message)
    _check_samples(config, len(made["train_labels"]))
    kept = {part: value[: config.train_samples] if part.startswith("train") else value for part, value in made.items()}
    return {part: _kept(part, value) for part, value in kept.items()}


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_ROUNDING = 1e-3  # of a number's standard deviation over the samples
_NOISE = 1e-12  # of a number's size


def _kept(part: str, value: Tensor) -> Tensor:
    """The tensor as it is stored: in the user's own memory if its type allows; `samples.pick` converts minibatches.

    float64 becomes float32 like the parameters (seven digits), uint64 becomes int64.
    """
    value = value.detach().cpu()
    if value.dtype == torch.float64:
        kept = value.to(torch.float32)
        _check_rounding(part, value, kept)
        return kept.contiguous()
    if value.dtype == torch.uint64:
        value = value.view(torch.int64)
        if any(bool((each < 0).any()) for each in chunks(value)):
            message = f"{part} has integers beyond 2**63 - 1, which torch has no type for"
            raise ScenarioError.at("task.dataset", message)
    return value.contiguous()


def from_numpy(name: str, array: npt.NDArray[Any]) -> Tensor:
    """A tensor over the array's own memory, which may be a file's and read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        try:
            return torch.from_numpy(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))
        except (TypeError, ValueError) as error:
            message = f"{name} has an array of {array.dtype}, which torch has no type for"
            raise ScenarioError.at("task.dataset", message) from error


def _check_rounding(part: str, value: Tensor, kept: Tensor) -> None:
    """A `ScenarioError` if float32 makes different samples equal, such as Unix times within one minute."""
    if not torch.equal(kept.isfinite(), value.isfinite()):
        raise ScenarioError.at("task.dataset", f"{part} has values beyond what float32 holds, 3.4e38")
    rows = value.reshape(len(value), -1).nan_to_num(0.0, 0.0, 0.0)
    lost = (kept.reshape(rows.shape).nan_to_num(0.0, 0.0, 0.0) - rows).abs().amax(0)
    spread = rows.std(0, correction=0)
    # A number that is equal in all samples, but for rounding, does not distinguish them.
    bad = (lost > _ROUNDING * spread) & (spread > _NOISE * rows.abs().amax(0))
    if bool(bad.any()):
        which = int(bad.nonzero()[0])
        message = (
            f"{part} is float64, of which float32 is off by up to {float(lost[which]):.3g} where samples differ by "
            f"{float(spread[which]):.3g} (their standard deviation); shift or scale it, or return integers"
        )
        raise ScenarioError.at("task.dataset", message)
    merged = (lost > 0) & (rows == rows.round()).all(0) & (spread > 0)
    if bool(merged.any()):
        message = f"{part} has integers as float64, beyond 16,777,216, which float32 does not hold; return integers"
        raise ScenarioError.at("task.dataset", message)


def _digits(config: DatasetConfig) -> dict[str, Pixels]:
    """The 1,797 digits of 8 by 8 pixels that come with scikit-learn, split by a fixed permutation."""
    # The file is read directly: importing scikit-learn takes longer than all other imports of such a run.
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None
    assert spec.submodule_search_locations
    table = np.loadtxt(
        Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz"), delimiter=",", dtype=np.uint8
    )
    table = table[generator(0, "digits").permutation(len(table))]
    pixels, classes = table[:, :-1].reshape(-1, 8, 8), np.ascontiguousarray(table[:, -1])
    n = _DIGITS_TRAINING
    return {
        "train_images": pixels[:n],
        "train_labels": classes[:n],
        "test_images": pixels[n:],
        "test_labels": classes[n:],
    }


def _fashion_mnist(config: DatasetConfig) -> dict[str, Pixels]:
    """Fashion-MNIST from the first folder that has all four files, else downloaded."""
    if config.data_folder is not None and not Path(config.data_folder).expanduser().is_dir():
        raise ScenarioError.at("task.data_folder", f"{config.data_folder} is not a folder")
    found = next((files for folder in _folders(config) if (files := _files(folder))), None) or _download(config)
    return _images(found)


def _in_folder(config: DatasetConfig) -> dict[str, Pixels]:
    """MNIST or KMNIST from the first folder that has all four IDX files."""
    below, looked = _FOLDERS[config.dataset], list(_folders(config))[:-1]
    for folder in looked:
        bare = (folder,) if folder == Path(config.data_folder or "").expanduser() else ()
        if found := _complete(*bare, folder / below / "raw"):
            return _images(found)
    message = (
        f"no {below} in {', '.join(map(str, looked))}: its files {', '.join(_FILES.values())} (or .gz) must lie in "
        f"task.data_folder or its {below}/raw; torchvision.datasets.{below}(FOLDER, download=True) puts them there"
    )
    raise ScenarioError.at("task.data_folder", message)


def _images(found: dict[str, Path]) -> dict[str, Pixels]:
    arrays = {part: idx(path) for part, path in found.items()}
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(labels):
            where = found[f"{split}_images"]
            message = f"{where} holds images of {images.shape} for labels of {labels.shape}"
            raise ScenarioError.at("task.dataset", message)
    return arrays


def _folders(config: DatasetConfig) -> Iterator[Path]:
    for folder in (config.data_folder, os.environ.get("ASGD_LAB_DATA"), _cache()):
        if folder:
            yield Path(folder).expanduser()
    yield DEBIAN_FOLDER


def _cache() -> Path:
    return Path("~/.cache/asgd_lab").expanduser()


def _files(folder: Path) -> dict[str, Path] | None:
    """The four files, in the folder or where torchvision puts them, compressed or not; None if one is missing."""
    return _complete(folder, folder / "FashionMNIST" / "raw")


def _complete(*places: Path) -> dict[str, Path] | None:
    for place in places:
        candidates = {part: (place / name, place / f"{name}.gz") for part, name in _FILES.items()}
        files = {part: path for part, paths in candidates.items() for path in reversed(paths) if path.is_file()}
        if len(files) == len(_FILES):
            return files
    return None


def _download(config: DatasetConfig) -> dict[str, Path]:
    root = _cache()
    try:
        # torchvision prints its progress on standard output, which belongs to the caller.
        with contextlib.redirect_stdout(io.StringIO()):
            torchvision().datasets.FashionMNIST(root, download=True)
        files = _files(root)
    except Exception as error:  # network, disk, checksum or archive: the advice is the same
        trouble = one_line(error)
    else:
        if files is not None:
            return files
        trouble = f"nothing arrived in {root}"
    looked = ", ".join(str(folder) for folder in _folders(config))
    message = (
        f"no Fashion-MNIST in {looked}, and the download failed ({trouble}); "
        "`apt install dataset-fashion-mnist`, or put its four IDX files into a folder and name it in task.data_folder"
    )
    raise ScenarioError.at("task.dataset", message)


DATASETS = {"digits": _digits, "fashion-mnist": _fashion_mnist, "mnist": _in_folder, "kmnist": _in_folder}
FOLDER = "image-folder"
CSV = "csv"
COMPOSED = {"fashion-mnist-pairs": 2, "fashion-mnist-triples": 3}
