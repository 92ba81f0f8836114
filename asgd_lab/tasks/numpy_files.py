"""Classification data in NumPy's files: four arrays in `.npy` files of a folder, or in one `.npz` file.

Arrays are mapped into memory where their file allows it. Pixels, bytes of (N, H, W) or (N, C, H, W), or of (N, H, W, C)
with `channels: last`, reach the model as (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.array_files import array, tensor
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.dataset_options import check_options
from asgd_lab.tasks.own_data import PARTS, kept
from asgd_lab.tasks.torchvision_sets import pixel_standard


@dataclass(frozen=True, slots=True)
class _Options:
    file: str | None = None  # .npz; None: an .npy file for each array
    train_images: str = "train_images"
    train_labels: str = "train_labels"
    test_images: str = "test_images"
    test_labels: str = "test_labels"
    channels: str = "first"
    standardise: bool = False  # pixels, by their mean and deviation in the training samples

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Options:
        texts = dict.fromkeys(("file", *PARTS), (str,))
        check_options("numpy", given, {**texts, "channels": ("first", "last"), "standardise": (bool,)})
        found = cls(**given)
        if found.file is not None and not found.file.endswith(".npz"):
            raise ScenarioError.at("task.dataset_options.file", f"must be a file .npz; got {found.file!r}")
        return found


def read(folder: str | None, given: Mapping[str, Any], train_samples: int | None) -> Data:
    """Tensors train_images, train_labels, test_images, test_labels; if pixels are standardised, `standard` (2, C)."""
    if folder is None:
        raise ScenarioError.at("task.data_folder", "is missing: the folder of the files .npy or .npz")
    options, root = _Options.of(given), Path(folder).expanduser()
    data = kept(str(root), {part: _part(root, options, part) for part in PARTS}, train_samples)
    for part in ("train_images", "test_images"):
        data[part] = _pixels(data[part], options)
    for part in ("train_labels", "test_labels"):
        labels = data[part]
        if labels.shape[1:] == (1,) and not labels.is_floating_point():
            data[part] = labels[:, 0]
    if not options.standardise:
        return data
    images = data["train_images"]
    if images.dtype != torch.uint8 or images.dim() != 4:
        message = f"is for pixels, bytes of (N, C, H, W); train_images are {images.dtype} of {tuple(images.shape)}"
        raise ScenarioError.at("task.dataset_options.standardise", message)
    return data | {"standard": pixel_standard(images)}


def _part(root: Path, options: _Options, part: str) -> Tensor:
    name: str = getattr(options, part)
    if options.file is not None:
        key = f"task.dataset_options.{part if name != part else 'file'}"
        return tensor(key, f"{options.file}: {name}", array(key, root / options.file, name))
    path = root / (name if name.endswith(".npy") else f"{name}.npy")
    return tensor("task.data_folder", str(path), array("task.data_folder", path))


def _pixels(images: Tensor, options: _Options) -> Tensor:
    """Bytes of three or four dimensions as (N, C, H, W), in the same memory; other inputs as they are."""
    if images.dtype == torch.uint8 and images.dim() == 3:
        return images.unsqueeze(1)
    return images.movedim(-1, 1) if options.channels == "last" and images.dim() == 4 else images
