"""Data are found where they are said to be, in the stated order, and read as the tensors that learners index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks import load, mnist_files
from asgd_lab.tasks.samples import pick
from asgd_lab.tasks.torchvision_import import torchvision
from tests.tasks.configs import Classification, write_fashion, write_idx


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The folders that are searched, none of which exists yet, and no network."""
    found = {name: tmp_path / name for name in ("folder", "environment", "home", "debian")}
    found["folder"].mkdir()
    monkeypatch.setenv("ASGD_LAB_DATA", str(found["environment"]))
    monkeypatch.setenv("HOME", str(found["home"]))
    monkeypatch.setattr(mnist_files, "DEBIAN_FOLDER", found["debian"])

    def no_network(root: Path, download: bool) -> None:
        raise RuntimeError("Error downloading:\nno network\n")

    monkeypatch.setattr(torchvision().datasets, "FashionMNIST", no_network)
    return found | {"cache": found["home"] / ".cache" / "asgd_lab"}


def mark_of(config: Classification) -> int:
    """Which of the folders that `write_fashion` wrote was read."""
    return int(load(config)["train_images"][0, 0, 0, 0])


def test_the_first_place_that_has_the_files_is_read(places: dict[str, Path]) -> None:
    order = ["debian", "cache", "environment", "folder"]
    config = Classification(dataset="fashion-mnist", data_folder=str(places["folder"]))
    for mark, name in enumerate(order, start=10):
        write_fashion(places[name], mark)
        assert mark_of(config) == mark
    assert mark_of(Classification(dataset="fashion-mnist")) == 12  # the environment's: no folder was named


@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_may_be_packed_and_may_lie_as_torchvision_puts_them(
    places: dict[str, Path], below: str, suffix: str
) -> None:
    write_fashion(places["folder"] / below, 7, suffix)
    data = load(Classification(dataset="fashion-mnist", data_folder=str(places["folder"]), train_samples=5))
    assert data["train_images"].shape == (5, 1, 5, 5)
    assert data["train_labels"].tolist() == [0, 1, 2, 0, 1]
    assert data["test_images"].shape == (4, 1, 5, 5)
    assert [data[part].dtype for part in mnist_files._FILES] == [torch.uint8, torch.int64] * 2
    assert all(tensor.is_contiguous() for tensor in data.values())


def test_an_incomplete_folder_is_passed_over(places: dict[str, Path]) -> None:
    write_fashion(places["folder"], 1)
    (places["folder"] / "t10k-labels-idx1-ubyte.gz").unlink()
    write_fashion(places["debian"], 2)
    assert mark_of(Classification(dataset="fashion-mnist", data_folder=str(places["folder"]))) == 2


def test_what_is_nowhere_is_downloaded_into_the_cache(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(root: Path, download: bool) -> None:
        print("Extracting")
        write_fashion(root / "FashionMNIST" / "raw", 3)

    monkeypatch.setattr(torchvision().datasets, "FashionMNIST", download)
    assert mark_of(Classification(dataset="fashion-mnist")) == 3
    assert places["cache"].is_dir()
    assert capsys.readouterr().out == ""


def test_a_failed_download_says_in_one_line_how_to_get_the_data(places: dict[str, Path]) -> None:
    with pytest.raises(
        ScenarioError, match=r"no network.*apt install dataset-fashion-mnist.*task.data_folder"
    ) as caught:
        load(Classification(dataset="fashion-mnist"))
    assert caught.value.key == "task.dataset"
    assert "\n" not in str(caught.value)


def test_a_download_that_brings_nothing_is_a_failed_download(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision().datasets, "FashionMNIST", lambda root, download: None)
    with pytest.raises(ScenarioError, match="nothing arrived"):
        load(Classification(dataset="fashion-mnist"))


def test_a_named_folder_must_exist(places: dict[str, Path]) -> None:
    with pytest.raises(ScenarioError, match="is not a folder") as caught:
        load(Classification(dataset="fashion-mnist", data_folder=str(places["debian"])))
    assert caught.value.key == "task.data_folder"


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "bad gzip", "other type"])
def test_a_damaged_file_is_named(places: dict[str, Path], damage: str) -> None:
    write_fashion(places["folder"], 1)
    victim = places["folder"] / "train-images-idx3-ubyte"
    if damage == "bad gzip":
        victim = victim.with_suffix(".gz")
    write_idx(victim, np.zeros((6, 5, 5), np.uint8))
    whole = victim.read_bytes()
    other_type = bytes([0, 0, 13]) + whole[3:]
    content = {
        "cut": whole[:50],
        "text": b"hello, world",
        "empty": b"",
        "bad gzip": whole[:-9],
        "other type": other_type,
    }
    victim.write_bytes(content[damage])
    with pytest.raises(ScenarioError, match=f"{victim.name} cannot be read") as caught:
        load(Classification(dataset="fashion-mnist", data_folder=str(places["folder"])))
    assert caught.value.key == "task.dataset"


def test_images_and_labels_must_match(places: dict[str, Path]) -> None:
    write_fashion(places["folder"], 1)
    write_idx(places["folder"] / "train-labels-idx1-ubyte", np.zeros(5, np.uint8))
    with pytest.raises(ScenarioError, match=r"images of \(6, 5, 5\) for labels of \(5,\)"):
        load(Classification(dataset="fashion-mnist", data_folder=str(places["folder"])))


def test_digits_are_split_once_and_for_all() -> None:
    data = load(Classification())
    assert data["train_images"].shape == (1437, 1, 8, 8)
    assert data["test_images"].shape == (360, 1, 8, 8)
    seen = pick(data, "train", torch.arange(1437))
    assert abs(seen.mean()) < 1e-3
    assert abs(seen.std() - 1) < 1e-3
    plain = data["train_images"].to(torch.float32).sub_(4.885).div_(6.012)
    assert torch.equal(seen, plain)  # standardised a minibatch at a time, to the same bits
    assert data["train_labels"][:6].tolist() == DIGITS
    assert data["test_labels"].bincount().min() > 20
    assert torch.equal(load(Classification())["train_images"], data["train_images"])


def test_only_the_first_training_samples_are_used() -> None:
    few, all_of_them = load(Classification(train_samples=7)), load(Classification())
    assert torch.equal(few["train_images"], all_of_them["train_images"][:7])
    assert torch.equal(few["test_images"], all_of_them["test_images"])
    with pytest.raises(ScenarioError, match="1438 is more than the 1437") as caught:
        load(Classification(train_samples=1438))
    assert caught.value.key == "task.train_samples"


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"did you mean 'fashion-mnist'.*allowed: digits") as caught:
        load(Classification(dataset="fashion_mnist"))
    assert caught.value.key == "task.dataset"


DIGITS = [5, 0, 3, 3, 5, 3]


@pytest.mark.parametrize(("name", "below"), [("mnist", "MNIST"), ("kmnist", "KMNIST")])
def test_mnist_is_read_from_a_folder_or_the_line_says_where_it_must_lie(
    places: dict[str, Path], name: str, below: str
) -> None:
    config = Classification(dataset=name, data_folder=str(places["folder"]))
    write_fashion(places["folder"] / "FashionMNIST" / "raw", 3)
    with pytest.raises(ScenarioError, match=f"no {below} in .*task.data_folder or its {below}/raw; torchvision"):
        load(config)
    write_fashion(places["folder"] / below / "raw", 9)
    assert mark_of(config) == 9
