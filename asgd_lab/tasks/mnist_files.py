"""Fashion-MNIST, MNIST and KMNIST: four IDX files in the first folder that has them all."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.idx_files import Pixels, idx
from asgd_lab.tasks.places import cache, folders
from asgd_lab.tasks.torchvision_import import torchvision

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_FOLDERS = {"mnist": "MNIST", "kmnist": "KMNIST"}  # torchvision's, for data that are never downloaded


def fashion_mnist(data_folder: str | None) -> dict[str, Pixels]:
    """Fashion-MNIST from the first folder that has all four files, else downloaded."""
    looked = [*folders(data_folder), DEBIAN_FOLDER]
    found = next((files for folder in looked if (files := _files(folder))), None)
    return _images(found or _download(looked))


def in_folder(name: str, data_folder: str | None) -> dict[str, Pixels]:
    """MNIST or KMNIST from the first folder that has all four IDX files."""
    below, looked = _FOLDERS[name], folders(data_folder)
    for folder in looked:
        bare = (folder,) if folder == Path(data_folder or "").expanduser() else ()
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


def _download(folders: list[Path]) -> dict[str, Path]:
    root = cache()
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
    looked = ", ".join(map(str, folders))
    message = (
        f"no Fashion-MNIST in {looked}, and the download failed ({trouble}); "
        "`apt install dataset-fashion-mnist`, or put its four IDX files into a folder and name it in task.data_folder"
    )
    raise ScenarioError.at("task.dataset", message)
