"""Trees of image files: train/CLASS/FILE and val/CLASS/FILE, as torchvision unpacks ILSVRC 2012.

Processes share names, labels and statistics; each reads an image when it needs it. Pixels keep their range of 0 to 255,
minus the mean image (Krizhevsky et al. 2012, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator
from asgd_lab.tasks.base import Data, check_free_memory, one_line
from asgd_lab.tasks.dataset_options import Kinds, check_options
from asgd_lab.tasks.places import walked
from asgd_lab.tasks.torchvision_import import torchvision

_SPLITS = {"train": "train", "test": "val"}  # ours, and the folders'
_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"


@dataclass(frozen=True, slots=True)
class Options:
    """Keys of `dataset_options`; the defaults are those of Krizhevsky et al. 2012, sections 2 and 4.1."""

    resize: int = 256  # pixels of the shorter side; then the central square is cut out
    crop: int = 224  # pixels of a side of the network's input
    flip: bool = True  # half of the training images are mirrored
    colours: float = 0.1  # deviation of the noise along the principal components of colour
    ten_crops: bool = True  # whether evaluation averages over four corners and centre, mirrored and not
    test_samples: int | None = None  # images to evaluate on, drawn once; None: all
    statistics_samples: int = 1_000  # training images for the mean image and the components of colour, or all if fewer
    threads: int = 2  # decoding threads of each worker
    ahead: int = 2  # minibatches decoded ahead of their use

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """The options, checked; a `ScenarioError` names the key."""
        yes_or_no, count = (bool,), (int,)
        kinds: Kinds = {
            "resize": count, "crop": count, "flip": yes_or_no, "colours": (int, float), "ten_crops": yes_or_no,
            "test_samples": (int, type(None)), "statistics_samples": count, "threads": count, "ahead": count,
        }  # fmt: skip
        counts = {name: 1 for name, kind in kinds.items() if int in kind}
        check_options("image-folder", given, kinds, counts | {"colours": 0})
        options = cls(**given)
        check_free_memory("task.dataset_options.resize", "is too large: mean images take", 3 * options.resize**2 * 20)
        if options.crop > options.resize:
            message = f"must be at most resize, {options.resize}; got {options.crop}"
            raise ScenarioError.at("task.dataset_options.crop", message)
        return options


def read(folder: str | None, given: Mapping[str, Any], train_samples: int | None) -> Data:
    """Names as bytes (N, L), labels, number of classes, mean image (3, R, R), and components of colour (3, 3)."""
    if folder is None:
        raise ScenarioError.at("task.data_folder", "is missing: where the folders train and val are")
    root, options, data = Path(folder).expanduser(), Options.of(given), Data()
    found = {split: _listed(root, name) for split, name in _SPLITS.items()}
    if found["train"][1] != found["test"][1]:
        raise ScenarioError.at("task.data_folder", f"{root}/train and {root}/val do not have the same classes")
    for split, (samples, _) in found.items():
        count = train_samples if split == "train" else options.test_samples
        if count is not None and count > len(samples):
            where = "task.train_samples" if split == "train" else "task.dataset_options.test_samples"
            raise ScenarioError.at(where, f"{count} is more than the {len(samples)} images in {root}/{_SPLITS[split]}")
        chosen = generator(0, "images", split).permutation(len(samples))[:count].tolist()
        data[f"{split}_files"] = _bytes([samples[index][0] for index in chosen])
        data[f"{split}_labels"] = torch.tensor([samples[index][1] for index in chosen])
    data["classes"] = torch.tensor(len(found["train"][1]))
    folders = ImageFolders(data, options)
    count = min(options.statistics_samples, len(data["train_labels"]))
    data["mean_image"], data["colours"] = _statistics(folders, count)
    return data


def _listed(root: Path, name: str) -> tuple[Sequence[tuple[str, int]], list[str]]:
    datasets = torchvision().datasets
    try:
        if (root / name).is_dir():
            for _ in walked(root / name):  # torchvision would follow a link without an end
                pass
        tree = datasets.ImageNet(root, name) if (root / _ARCHIVE).exists() else datasets.ImageFolder(root / name)
    except (OSError, RuntimeError) as error:
        raise ScenarioError.at("task.data_folder", f"{root}/{name} cannot be read: {one_line(error)}") from error
    return tree.samples, list(map(str, tree.classes))


def _statistics(folders: ImageFolders, samples: int) -> tuple[Tensor, Tensor]:
    """Mean image (3, R, R) and principal components of colour times their variances (3, 3), of the first images.

    One pass that keeps no image; its sums are integers, hence exact.
    """
    side = folders.options.resize
    total, sums, products = np.zeros((3, side, side), np.int64), np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
    for sample in range(samples):
        picture = folders.picture("train", sample).numpy()
        total += picture
        pixels = picture[:, ::8, ::8].reshape(3, -1).astype(np.int64)
        sums += pixels.sum(1)
        products += pixels @ pixels.T
    count = samples * len(range(0, side, 8)) ** 2
    covariance = (products - np.outer(sums / count, sums)) / (count - 1) / 255.0**2
    variances, components = np.linalg.eigh(covariance)
    mean, colours = total / samples, 255.0 * components * variances
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(colours.astype(np.float32))


def _bytes(names: Sequence[str]) -> Tensor:
    encoded = [name.encode() for name in names]
    longest = max(map(len, encoded))
    padded = bytearray().join(each.ljust(longest, b"\0") for each in encoded)  # one that torch may write to
    return torch.from_numpy(np.frombuffer(padded, np.uint8).reshape(len(encoded), longest))


class ImageFolders:
    """The images of such a tree, decoded, cropped and augmented; several threads may call it at once."""

    def __init__(self, data: Data, options: Options) -> None:
        self._data, self.options = data, options
        self.shape = (3, options.crop, options.crop)

    def picture(self, split: str, sample: int) -> Tensor:
        """(3, R, R) bytes: the shorter side resized to R, the central square cut out."""
        from PIL import Image  # imported here: few runs need it

        path, side = bytes(self._data[f"{split}_files"][sample].tolist()).rstrip(b"\0").decode(), self.options.resize
        try:
            with Image.open(path) as opened:
                opened.draft("RGB", (side, side))  # decode a JPEG at the lowest sufficient resolution
                image = opened.convert("RGB")
        except Exception as error:  # no library states which errors unknown bytes may raise
            raise ScenarioError.at("task.data_folder", f"{path} cannot be read: {one_line(error)}") from error
        ratio = side / min(image.size)
        width, height = (max(side, round(length * ratio)) for length in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def augmented(self, sample: int, stream: tuple[int, int, int, int]) -> Tensor:
        """(3, C, C): a random crop, mirrored or not, with colour noise, a function of (seed, worker, step, place)."""
        options = self.options
        seed, worker, step, place = stream
        random = generator(seed, "augment", worker, step, place)
        top, left = random.integers(options.resize - options.crop + 1, size=2).tolist()
        cut = self._cut(self._centred("train", sample), top, left)
        if options.flip and random.random() < 0.5:
            cut = cut.flip(2)
        if options.colours:
            noise = random.normal(scale=options.colours, size=3).astype(np.float32)
            cut = cut + (self._data["colours"] @ torch.from_numpy(noise)).view(3, 1, 1)
        return cut.contiguous()

    def crops(self, split: str, sample: int) -> Tensor:
        """(V, 3, C, C): the central crop; with `ten_crops` also the corners, and the mirror images of all five."""
        last = self.options.resize - self.options.crop
        places = [(last // 2, last // 2)]
        if self.options.ten_crops:
            places += [(0, 0), (0, last), (last, 0), (last, last)]
        picture = self._centred(split, sample)
        views = [self._cut(picture, top, left) for top, left in places]
        if self.options.ten_crops:
            views += [view.flip(2) for view in views]
        return torch.stack(views)

    def _centred(self, split: str, sample: int) -> Tensor:
        return self.picture(split, sample).to(torch.float32).sub_(self._data["mean_image"])

    def _cut(self, picture: Tensor, top: int, left: int) -> Tensor:
        side = self.options.crop
        return picture[:, top : top + side, left : left + side]
