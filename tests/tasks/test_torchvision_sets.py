"""Torchvision's data sets by name, from tiny files in the original formats, and damaged ones."""

from __future__ import annotations

import bz2
import gzip
import pickle
import struct
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from asgd_lab.errors import ScenarioError
from asgd_lab.task_keys.networks import DATASETS
from asgd_lab.tasks import build, datasets, load
from asgd_lab.tasks.samples import pick
from asgd_lab.tasks.torchvision_import import torchvision
from asgd_lab.tasks.torchvision_sets import SETS, pixel_standard
from tests.tasks.configs import Classification, write_idx

TRAIN, TEST = 20, 8
Written = dict[str, Any]
"""Images (N, C, H, W) and labels of both splits, as they should be read."""


def drawn(shape: tuple[int, ...], classes: int = 4) -> Written:
    draw = np.random.default_rng(0)
    found: Written = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        found[f"{split}_images"] = draw.integers(256, size=(count, *shape), dtype=np.uint8)
        found[f"{split}_labels"] = np.arange(count) % classes
    return found


def pickled(path: Path, images: Any, labels: Any, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"data": images.reshape(len(images), -1), name: labels.tolist(), "filenames": ["a.png"] * len(images)}
    path.write_bytes(pickle.dumps(content, protocol=2))


def cifar10(folder: Path) -> Written:
    found = drawn((3, 32, 32))
    base = folder / "cifar-10-batches-py"
    for number in range(5):
        part = slice(4 * number, 4 * number + 4)
        pickled(base / f"data_batch_{number + 1}", found["train_images"][part], found["train_labels"][part], "labels")
    pickled(base / "test_batch", found["test_images"], found["test_labels"], "labels")
    return found


def cifar10_rows(folder: Path) -> Written:
    found = drawn((3, 32, 32))
    (folder / "cifar-10-batches-bin").mkdir()

    def rows(split: str, part: slice) -> bytes:
        images, labels = found[f"{split}_images"][part], found[f"{split}_labels"][part].astype(np.uint8)
        return np.concatenate([labels[:, None], images.reshape(len(images), -1)], 1).tobytes()

    for number in range(5):
        part = slice(4 * number, 4 * number + 4)
        (folder / "cifar-10-batches-bin" / f"data_batch_{number + 1}.bin").write_bytes(rows("train", part))
    (folder / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(rows("test", slice(None)))
    return found


def cifar100(folder: Path) -> Written:
    found = drawn((3, 32, 32))
    for split in ("train", "test"):
        path = folder / "cifar-100-python" / split
        pickled(path, found[f"{split}_images"], found[f"{split}_labels"], "fine_labels")
    return found


def cifar100_rows(folder: Path) -> Written:
    found = drawn((3, 32, 32))
    (folder / "cifar-100-binary").mkdir()
    for split in ("train", "test"):
        images, labels = found[f"{split}_images"], found[f"{split}_labels"].astype(np.uint8)
        rows = [np.full_like(labels, 99)[:, None], labels[:, None], images.reshape(len(images), -1)]
        (folder / "cifar-100-binary" / f"{split}.bin").write_bytes(np.concatenate(rows, 1).tobytes())
    return found


def svhn(folder: Path) -> Written:
    found = drawn((3, 32, 32))
    for split in ("train", "test"):
        labels = found[f"{split}_labels"]
        content = {"X": found[f"{split}_images"].transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]}
        savemat(folder / f"{split}_32x32.mat", content)
    return found


def stl10(folder: Path) -> Written:
    found = drawn((3, 96, 96))
    (folder / "stl10_binary").mkdir()
    for split in ("train", "test"):
        found[f"{split}_images"].transpose(0, 1, 3, 2).tofile(folder / "stl10_binary" / f"{split}_X.bin")
        (found[f"{split}_labels"] + 1).astype(np.uint8).tofile(folder / "stl10_binary" / f"{split}_y.bin")
    return found


def usps(folder: Path) -> Written:
    found = drawn((1, 16, 16))
    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        values = (found[f"{split}_images"].reshape(-1, 256) + 0.5) / 127.5 - 1
        lines = [
            f"{label + 1} " + " ".join(f"{place + 1}:{value:.6f}" for place, value in enumerate(row)) + " "
            for label, row in zip(found[f"{split}_labels"], values, strict=True)
        ]
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode() + b"\n"))
    return found


def qmnist(folder: Path) -> Written:
    found = drawn((1, 28, 28))
    for split in ("train", "test"):
        base, labels = folder / "QMNIST" / "raw", found[f"{split}_labels"]
        write_idx(base / f"qmnist-{split}-images-idx3-ubyte.gz", found[f"{split}_images"][:, 0])
        table = np.stack([labels, *[labels + 5] * 7], 1).astype(">i4")
        content = struct.pack(">HBB2I", 0, 12, 2, *table.shape) + table.tobytes()
        (base / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(gzip.compress(content))
    return found


def emnist(folder: Path) -> Written:
    found = drawn((1, 28, 28))
    for split in ("train", "test"):
        base = folder / "EMNIST" / "raw" / f"emnist-letters-{split}"
        write_idx(Path(f"{base}-images-idx3-ubyte"), found[f"{split}_images"][:, 0])
        write_idx(Path(f"{base}-labels-idx1-ubyte"), found[f"{split}_labels"].astype(np.uint8))
    return found


WRITERS: dict[str, tuple[str, Callable[[Path], Written]]] = {
    "cifar10": ("cifar10", cifar10), "cifar10 rows": ("cifar10", cifar10_rows), "cifar100": ("cifar100", cifar100),
    "cifar100 rows": ("cifar100", cifar100_rows), "svhn": ("svhn", svhn), "stl10": ("stl10", stl10),
    "usps": ("usps", usps), "qmnist": ("qmnist", qmnist), "emnist": ("emnist-letters", emnist),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASGD_LAB_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("case", WRITERS)
def test_a_data_set_is_read_as_torchvision_unpacks_it(tmp_path: Path, case: str) -> None:
    name, write = WRITERS[case]
    expected = write(tmp_path)
    data = load(Classification(name, str(tmp_path), train_samples=TRAIN))
    for part, values in expected.items():
        assert np.array_equal(data[part].numpy(), values), part
    images = expected["train_images"].astype(np.float64)
    np.testing.assert_allclose(data["standard"][0], images.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(data["standard"][1], images.std((0, 2, 3)), rtol=1e-5)
    seen = pick(data, "train", torch.arange(TRAIN))
    assert (seen.dtype, float(seen.mean().abs()) < 1e-5) == (torch.float32, True)
    task = build(Classification(name, model="small", batch_size=5), 0, data)
    task.learner(0, task.initial()).minibatch(0)


@pytest.mark.parametrize(("case", "call"), [("usps", "USPS"), ("svhn", "SVHN"), ("stl10", "STL10")])
def test_torchvision_reads_the_same_from_the_same_files(
    tmp_path: Path, case: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[case][1](tmp_path)
    module = __import__(f"torchvision.datasets.{case}", fromlist=["x"]) if torchvision() else None
    monkeypatch.setattr(module, "check_integrity", lambda *_: True, raising=False)
    theirs = getattr(torchvision().datasets, call)(
        tmp_path, **({"train": True} if call == "USPS" else {"split": "train"})
    )
    data = load(Classification(case, str(tmp_path)))
    images = theirs.data[:, None] if call == "USPS" else theirs.data
    assert np.array_equal(data["train_images"].numpy(), images)
    assert data["train_labels"].tolist() == list(theirs.targets if call == "USPS" else theirs.labels)


@pytest.mark.parametrize("case", WRITERS)
def test_a_missing_or_damaged_file_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    name, write = WRITERS[case]

    def told() -> str:
        with pytest.raises(ScenarioError) as caught:
            load(Classification(name, str(tmp_path)))
        assert "\n" not in str(caught.value)
        assert caught.value.key in ("task.data_folder", "task.dataset")
        return str(caught.value)

    assert f"no {name} in {tmp_path}" in told()
    assert "torchvision.datasets." in told()
    write(tmp_path)
    victim = max((path for path in tmp_path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    whole = victim.read_bytes()
    for content in (whole[: len(whole) // 2 + 1], b"", b"hello, world\n"):
        victim.write_bytes(content)
        assert victim.name in told()
    victim.unlink()
    assert f"has no {victim.name.removesuffix('.gz')}" in told()


def many_lines(folder: Path) -> None:
    usps(folder)
    for name in ("usps.bz2", "usps.t.bz2"):
        (folder / name).write_bytes(bz2.compress(bz2.decompress((folder / name).read_bytes()) * 130))


def packed_mnist(folder: Path) -> None:
    for part, count in (("train", 100), ("t10k", 10)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", np.zeros((count, 30, 30), np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(count).astype(np.uint8) % 10)


UNPACKED = {case: WRITERS[case] for case in ("cifar10", "cifar10 rows", "cifar100", "svhn")} | {
    "usps": ("usps", many_lines), "mnist": ("mnist", packed_mnist),
}  # fmt: skip


@pytest.mark.parametrize("case", UNPACKED)
def test_what_is_unpacked_or_copied_is_refused_before_it_fills_the_memory(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write = UNPACKED[case]
    write(tmp_path)
    load(Classification(name, str(tmp_path)))
    monkeypatch.setattr("psutil.virtual_memory", lambda: types.SimpleNamespace(available=50_000))
    with pytest.raises(ScenarioError, match=r"^is too large: .* GB of memory are free$") as caught:
        load(Classification(name, str(tmp_path)))
    assert caught.value.key == "task.dataset"


def test_a_header_that_states_more_than_there_is_costs_no_memory(tmp_path: Path) -> None:
    packed_mnist(tmp_path)
    victim = tmp_path / "train-images-idx3-ubyte.gz"
    for shape, why in (((2**32 - 1,) * 3, "is too large: "), ((200, 30, 30), "has 90,016 bytes where its header")):
        victim.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, *shape) + bytes(90_000)))
        with pytest.raises(ScenarioError, match=why):
            load(Classification("mnist", str(tmp_path)))
    victim.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 100, 30, 30) + bytes(10_000_000)))
    with pytest.raises(ScenarioError, match="has more than 90,016 bytes where its header"):
        load(Classification("mnist", str(tmp_path)))


def test_a_pickle_that_names_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    cifar100(tmp_path)
    mark = tmp_path / "ran"

    class Bad:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    (tmp_path / "cifar-100-python" / "train").write_bytes(pickle.dumps({"data": Bad()}, protocol=2))
    with pytest.raises(ScenarioError, match="and only arrays are unpickled"):
        load(Classification("cifar100", str(tmp_path)))
    assert not mark.exists()


def test_images_and_labels_of_other_numbers_are_refused(tmp_path: Path) -> None:
    found = cifar100(tmp_path)
    pickled(tmp_path / "cifar-100-python" / "train", found["train_images"], found["train_labels"][1:], "fine_labels")
    with pytest.raises(ScenarioError, match=r"images of \(20, 3, 32, 32\) uint8 for labels of \(19,\)"):
        load(Classification("cifar100", str(tmp_path)))
    pickled(tmp_path / "cifar-100-python" / "train", found["train_images"], found["train_labels"], "labels")
    with pytest.raises(ScenarioError, match="KeyError: 'fine_labels'"):
        load(Classification("cifar100", str(tmp_path)))


def test_a_channel_of_one_value_is_not_divided_by_0() -> None:
    images = torch.full((5, 2, 3, 3), 7, dtype=torch.uint8)
    images[:, 1, 0] = 250
    assert pixel_standard(images)[:, 0].tolist() == [7.0, 1.0]
    assert torch.allclose(pixel_standard(images)[:, 1], torch.tensor([88.0, images[:, 1].float().std(correction=0)]))


def test_a_scenario_knows_the_same_names_as_the_reader() -> None:
    assert sorted(DATASETS) == sorted(datasets.KNOWN)
    assert set(SETS) < set(DATASETS)
