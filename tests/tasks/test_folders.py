"""Image files: crops, flips and colours are functions of their place alone; evaluation averages ten crops; and the
network of Krizhevsky et al. 2012 learns from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import final_params
from asgd_lab.scenario import Document, Scenario
from asgd_lab.tasks import build, datasets, load
from asgd_lab.tasks.folders import Folders, Options
from asgd_lab.tasks.krizhevsky import krizhevsky
from tests.tasks.configs import Classification, Optimizer, write_fashion

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two test images a class, of different sizes; a class has its own colour and stripes."""
    root, random = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                height, width = random.integers(40, 70, size=2)
                pixels = random.integers(0, 60, (height, width, 3))
                pixels[:, :: number + 2, number] += 150
                kind = "png" if index % 2 else "jpeg"
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{index}.{kind}")
    return root


def config(tree: Path, **changes: Any) -> Classification:
    options = {"resize": 40, "crop": 35, **changes.pop("dataset_options", {})}
    stated: dict[str, Any] = {"dataset": "image-folder", "data_folder": str(tree), "batch_size": 6, **changes}
    return Classification(dataset_options=options, **stated)


def test_a_tree_is_listed_with_its_mean_and_colours(tree: Path) -> None:
    data = load(config(tree))
    assert data["train_labels"].bincount().tolist() == [6, 6, 6]
    assert data["test_labels"].bincount().tolist() == [2, 2, 2]
    assert load(config(tree, train_samples=1, batch_size=1))["classes"] == 3
    names = {bytes(name.tolist()).rstrip(b"\0").decode() for name in data["train_files"]}
    assert names == {str(path) for path in (tree / "train").glob("*/*")}
    folders = Folders(data, Options(resize=40, crop=35))
    pictures = torch.stack([folders.picture("train", sample) for sample in range(18)]).to(torch.float64)
    assert pictures.shape == (18, 3, 40, 40)
    assert torch.allclose(data["mean_image"].to(torch.float64), pictures.mean(0), atol=1e-4)
    pixels = pictures[:, :, ::8, ::8].transpose(0, 1).reshape(3, -1) / 255
    covariance = pixels.cov()
    columns = data["colours"].to(torch.float64) / 255
    variances = columns.norm(dim=0)
    assert torch.allclose(columns @ torch.diag(1 / variances) @ columns.T, covariance, atol=1e-6)


def test_a_picture_is_the_central_square_of_the_resized_image(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40, 0] = 200  # the middle third alone is red
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / split / "one" / "wide.png")
    data = load(config(tmp_path, dataset_options={"resize": 20, "crop": 20}, batch_size=1))
    picture = Folders(data, Options(resize=20, crop=20)).picture("train", 0)
    assert picture[0].eq(200).all()
    assert picture[1:].eq(0).all()


def test_training_images_depend_on_their_place_alone_and_stay_inside(tree: Path) -> None:
    data = load(config(tree))
    plain = Folders(data, Options(resize=40, crop=35, colours=0.0, flip=False))
    whole = plain.picture("train", 4).to(torch.float32) - data["mean_image"]
    cuts = {(top, left): whole[:, top : top + 35, left : left + 35] for top in range(6) for left in range(6)}
    places = [
        next(place for place, cut in cuts.items() if torch.equal(cut, plain.augmented(4, (0, 1, step, 2))))
        for step in range(200)
    ]
    assert {top for top, _ in places} == {left for _, left in places} == set(range(6))
    augmented = Folders(data, Options(resize=40, crop=35))
    assert torch.equal(augmented.augmented(4, (0, 1, 2, 3)), augmented.augmented(4, (0, 1, 2, 3)))
    others = [(1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4)]
    assert not any(torch.equal(augmented.augmented(4, (0, 1, 2, 3)), augmented.augmented(4, other)) for other in others)
    shift = augmented.augmented(4, (0, 1, 2, 3)) - plain.augmented(4, (0, 1, 2, 3))
    flipped = augmented.augmented(4, (0, 1, 2, 3)) - plain.augmented(4, (0, 1, 2, 3)).flip(2)
    assert any(each.reshape(3, -1).std(dim=1).max() < 1e-3 for each in (shift, flipped)), "one colour for all pixels"


def test_ten_crops_are_four_corners_and_the_centre_and_their_mirror_images(tree: Path) -> None:
    data = load(config(tree))
    folders = Folders(data, Options(resize=40, crop=36))
    whole = folders.picture("test", 1).to(torch.float32) - data["mean_image"]
    crops = folders.crops("test", 1)
    assert crops.shape == (10, 3, 36, 36)
    for crop, (top, left) in zip(crops, [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)], strict=False):
        assert torch.equal(crop, whole[:, top : top + 36, left : left + 36])
    assert torch.equal(crops[5:], crops[:5].flip(3))
    assert Folders(data, Options(resize=40, crop=36, ten_crops=False)).crops("test", 1).shape == (1, 3, 36, 36)


class Corner(nn.Module):
    """Votes for class 0 by the top left pixel's red, for class 1 a constant; so that views disagree."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = images[:, 0, 0, 0] * self.scale
        return torch.stack([red, torch.zeros_like(red), red - 100.0], 1)


def corner(num_classes: int) -> nn.Module:
    return Corner()


def test_the_average_of_ten_crops_is_what_its_name_says(tree: Path) -> None:
    stated = config(tree, model="tests.tasks.test_folders:corner")
    data = load(stated)
    task = build(stated, 0, data)
    rows = {(split, metric): value for split, metric, value in task.evaluate(task.initial())}
    folders, wrong = Folders(data, Options(resize=40, crop=35)), {"first": 0, "mean": 0}
    for sample, label in enumerate(data["test_labels"].tolist()):
        outputs = Corner()(folders.crops("test", sample)).softmax(1)
        wrong["first"] += int(outputs[0].argmax() != label)
        wrong["mean"] += int(outputs.mean(0).argmax() != label)
    assert rows["test", "error"] == wrong["first"] / 6
    assert rows["test", "ten_crop_error"] == wrong["mean"] / 6
    assert rows["test", "top5_error"] == rows["test", "ten_crop_top5_error"] == 0.0, "of three classes"


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [
        ({"crops": 3}, "crops", "takes no 'crops'; allowed: resize, crop"),
        ({"crop": 50}, "crop", "must be at most resize, 40; got 50"),
        ({"flip": 1}, "flip", "must be true or false; got 1"),
        ({"threads": 0}, "threads", "must be a whole number, at least 1; got 0"),
        ({"colours": -0.1}, "colours", "must be a number, at least 0; got -0.1"),
        ({"test_samples": 7}, "test_samples", "7 is more than the 6 images"),
    ],
)
def test_wrong_options_are_refused_by_name(tree: Path, options: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        load(config(tree, dataset_options=options))
    assert caught.value.key == f"task.dataset_options.{key}"


def test_a_folder_that_is_no_tree_or_has_other_classes_is_refused(tree: Path, tmp_path: Path) -> None:
    for folder, words in ((None, "is missing"), (tmp_path, r"train cannot be read: FileNotFoundError")):
        with pytest.raises(ScenarioError, match=words) as caught:
            load(Classification(dataset="image-folder", data_folder=None if folder is None else str(folder)))
        assert caught.value.key == "task.data_folder"
    (tmp_path / "val").symlink_to(tree / "val")
    (tmp_path / "train" / "ant").mkdir(parents=True)
    (tmp_path / "train" / "ant" / "a.png").symlink_to(tree / "train" / "ant" / "1.png")
    with pytest.raises(ScenarioError, match="do not have the same classes"):
        load(config(tmp_path))
    (tmp_path / "train" / "ant" / "b.png").write_text("no picture")
    for name in CLASSES[1:]:
        (tmp_path / "train" / name).symlink_to(tree / "train" / name)
    with pytest.raises(ScenarioError, match=r"b\.png cannot be read: UnidentifiedImageError"):
        load(config(tmp_path))


# ---------------------------------------------------------------- the network of 2012


def test_the_network_has_the_shapes_and_the_parameters_of_its_paper() -> None:
    with torch.device("meta"):
        network = krizhevsky((3, 224, 224), 1000)
        images = torch.empty(2, 3, 224, 224)
        sizes = []
        for layer in network.get_submodule("convolutions").children():
            images = layer(images)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                sizes.append(tuple(images.shape[1:]))
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 1000)
    assert sizes == [(96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13),
                     (256, 13, 13), (256, 6, 6)]  # fmt: skip
    assert sum(parameter.numel() for parameter in network.parameters()) == 60_965_224


def test_the_network_begins_as_its_paper_says() -> None:
    torch.manual_seed(0)
    network = krizhevsky((3, 63, 63), 10)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    biases = [layer.bias.unique().tolist() for layer in layers if layer.bias is not None]
    assert biases == [[0.0], [1.0], [0.0], [1.0], [1.0], [1.0], [1.0], [0.0]]
    for layer in layers:
        deviation = layer.weight.std().item()
        assert abs(deviation - 0.01) < 5 * 0.01 / (2 * layer.weight.numel()) ** 0.5


def test_responses_are_normalised_by_the_papers_formula() -> None:
    images = torch.randn(2, 96, 3, 3, generator=torch.Generator().manual_seed(0)) * 50
    (layer, *_) = (each for each in krizhevsky((3, 63, 63), 2).modules() if isinstance(each, nn.LocalResponseNorm))
    expected = torch.empty_like(images)
    for kernel in range(96):
        near = images[:, max(0, kernel - 2) : kernel + 3]
        expected[:, kernel] = images[:, kernel] / (2 + 1e-4 * near.square().sum(1)) ** 0.75
    assert torch.allclose(layer(images), expected, rtol=1e-5)


@dataclass
class Biases:
    lr: float = 2.0
    weight_decay: float | None = 0.0


def test_biases_have_rates_of_their_own(tree: Path) -> None:
    """One step of SGD, by hand."""
    decayed = Optimizer(options={"lr": 0.125, "weight_decay": 0.5})
    stated = config(tree, biases=Biases(), optimizer=decayed, model="mlp")
    data = load(stated)
    task = build(stated, 0, data)
    params = task.initial()
    gradients = torch.zeros_like(params)
    task.learner(0, params, gradients).minibatch(0)
    before, after = ([*_views(task, vector)] for vector in (task.initial(), params))
    for old, new, gradient in zip(before, after, _views(task, gradients), strict=True):
        step = 0.125 * (gradient + 0.5 * old) if old.dim() > 1 else 0.25 * gradient
        assert torch.allclose(new, old - step, rtol=1e-5, atol=1e-7)
    assert {view.dim() for view in before} == {1, 2}


def _views(task: Any, vector: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = task._layout.views(vector)
    return found


def scenario(tree: Path, **changes: Any) -> Scenario:
    task = {
        "name": "classification", "dataset": "image-folder", "data_folder": str(tree), "model": "krizhevsky",
        "dataset_options": {"resize": 70, "crop": 63}, "batch_size": 6, "biases": {"lr": 2.0, "weight_decay": 0.0},
        "optimizer": {"name": "SGD", "lr": 0.005, "momentum": 0.9, "weight_decay": 0.0005},
    }  # fmt: skip
    stated: dict[str, Any] = {
        "name": "images", "task": task | changes.pop("task", {}), "algorithm": {"name": "asgd", "n_sync": 2},
        "workers": 2, "budget": {"minibatches": 8}, "backend": "process", **changes,
    }  # fmt: skip
    return Scenario.model_validate(stated)


def test_rounds_of_two_real_workers_on_files_repeat_to_the_bit(tree: Path, tmp_path: Path) -> None:
    stated = scenario(tree)
    summary = execute(stated, tmp_path / "run")
    assert summary["minibatches"] == 8
    assert {"test_ten_crop_error", "test_ten_crop_top5_error", "test_error", "test_top5_error"} < set(summary["final"])
    verdict = repeat(stated, tmp_path / "run")
    assert verdict.difference is None
    assert verdict.final


@pytest.mark.xdist_group("process")
def test_the_scenario_of_ilsvrc_runs_with_its_whole_network_on_two_real_workers(tmp_path: Path) -> None:
    """At the paper's size: 1,000 classes, crops of 224 pixels, 60,965,224 parameters; only the pictures are few."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(1000):
            folder = tmp_path / "tree" / split / f"n{number:08}"
            folder.mkdir(parents=True)
            Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(folder / "0.png")
    (point,) = Document.read(Path(__file__).parents[2] / "scenarios" / "ilsvrc-2012.yaml").points({
        "task.data_folder": str(tmp_path / "tree"), "backend.device": "cpu", "workers": 2, "task.batch_size": 2,
        "algorithm.n_sync": 2, "budget": {"minibatches": 8}, "task.dataset_options": {"test_samples": 2},
        "task.train_samples": 16, "evaluate": None, "backend.checkpoint": None,
    })  # fmt: skip
    summary = execute(point.scenario, tmp_path / "run")
    assert summary["minibatches"] == 8
    assert summary["updates"] == 4
    assert len(final_params(tmp_path / "run")) == 60_965_224


def test_the_network_overfits_a_handful_of_images(tree: Path, tmp_path: Path) -> None:
    still = {"resize": 63, "crop": 63, "flip": False, "colours": 0.0, "ten_crops": False}
    task = {"dataset_options": still, "train_samples": 6, "model_options": {"dropout": 0.0}, "biases": None,
            "optimizer": {"name": "Adam", "lr": 3e-4}}  # fmt: skip
    stated = scenario(tree, task=task, workers=1, algorithm={"name": "sgd"}, budget={"minibatches": 40},
                      backend="inline")  # fmt: skip
    summary = execute(stated, tmp_path / "run")
    assert summary["final"]["train_error"] == 0.0
    assert summary["final"]["train_loss"] < 0.1


# ---------------------------------------------------------------- several pictures at once


@pytest.mark.parametrize(("name", "count"), [("fashion-mnist-pairs", 2), ("fashion-mnist-triples", 3)])
def test_composed_samples_have_their_members_and_their_digits(
    name: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion(tmp_path, 9)
    stated = Classification(dataset=name, data_folder=str(tmp_path), train_samples=500)
    data = load(stated)
    single = load(Classification(dataset="fashion-mnist", data_folder=str(tmp_path)))
    index = torch.tensor([3, 0, 499])
    picked = datasets.pick(data, "train", index)
    assert picked.shape == (3, count, 2, 2)
    for sample, picture in zip(index.tolist(), picked, strict=True):
        members = data["train_members"][sample]
        assert torch.equal(picture, data["train_images"][members, 0])
        digits = "".join(str(single["train_labels"][member].item()) for member in members)
        assert int(digits) == data["train_labels"][sample]
    assert torch.allclose(
        data["train_images"], single["train_images"][:, :, :4, :4].reshape(6, 1, 2, 2, 2, 2).mean((3, 5))
    )
    assert len(data["test_labels"]) == 2000
    assert torch.equal(load(stated)["train_members"], data["train_members"])
    again = load(Classification(dataset=name, data_folder=str(tmp_path), train_samples=100))
    assert len(again["train_labels"]) == 100
