"""Networks of ours, of torchvision and of the user, and one line about each way in which they fail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks import build, load, mnist_files, models
from tests.tasks.configs import Classification, pictures

OWN = """
import torch
from torch import nn
from torch import nn
import neighbour

def good(num_classes, width=4):
    hidden = nn.Linear(neighbour.PIXELS, width)
    return nn.Sequential(nn.Flatten(), hidden, nn.Dropout(0.5), nn.Linear(width, num_classes))

class Spaces:
    @staticmethod
    def inner(num_classes): return good(num_classes)

class Pair(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.net = good(num_classes)
    def forward(self, x): return self.net(x), self.net(x)

def raising(num_classes): raise RuntimeError("first line\\nsecond line")
def nothing(num_classes): return None
def empty(num_classes): return nn.Flatten()
def frozen(num_classes): return good(num_classes).requires_grad_(False)
def double(num_classes): return good(num_classes).double()
def lazy(num_classes): return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
def more_classes(num_classes): return good(num_classes + 1)
def fewer_classes(num_classes): return good(num_classes - 1)
def wrong_pixels(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(3, num_classes))
def no_arguments(): return good(4)
value = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current directory, which is not on the path yet."""
    name = "users_models_" + tmp_path.name
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / "neighbour.py").write_text("PIXELS = 64\n")
    (tmp_path / f"{name}_broken.py").write_text("import no_such_module\n")
    (tmp_path / f"{name}_leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    return name


def build_it(model: str, options: dict[str, Any] | None = None, batch_size: int = 10) -> Any:
    return build(Classification(model=model, model_options=options or {}, batch_size=batch_size), 0, pictures())


@pytest.mark.parametrize("factory", ["good", "Spaces.inner", "more_classes"])
def test_a_users_own_model_is_trained(own: str, factory: str) -> None:
    task = build_it(f"{own}:{factory}", {"width": 6} if factory == "good" else None)
    width = 6 if factory == "good" else 4
    params = task.initial()
    classes = 5 if factory == "more_classes" else 4  # more than the labels name, as a vocabulary may have
    assert params.count_nonzero() == 64 * width + width + classes * width + classes
    learner = task.learner(0, params)
    before = task.evaluate(params)
    for step in range(30):
        learner.minibatch(step)
    assert dict(row[1:] for row in task.evaluate(params)[:2])["loss"] < before[1][2]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("{own}_missing:f", "cannot be imported: ModuleNotFoundError"),
        ("{own}_broken:f", "No module named 'no_such_module'"),
        ("{own}_leaving:f", "cannot be imported: SystemExit"),
        ("{own}:godo", "has no 'godo'; did you mean 'good'"),
        ("{own}:", "not of the form package.module:factory"),
        (":good", "not of the form"),
        ("{own}:value", "not callable"),
        ("{own}:raising", "raised RuntimeError: first line second line"),
        ("{own}:no_arguments", "raised TypeError"),
        ("{own}:nothing", "returned NoneType"),
        ("{own}:empty", "no parameters to train"),
        ("{own}:frozen", "no parameters to train"),
        ("{own}:double", "parameter 1.weight of torch.float64"),
        ("{own}:lazy", "leaves the shape of its parameter 1.weight open"),
        ("{own}:wrong_pixels", r"cannot learn from inputs of \(1, 8, 8\): RuntimeError"),
        ("{own}:fewer_classes", r"makes \(10, 3\) of 10 samples; .* \(B, 4\)"),
        ("{own}:Pair", r"returns tuple; .* \(B, 4\).*aux_logits"),
        ("lenett", "did you mean 'lenet'"),
        ("resnet_18", "did you mean 'resnet18'.*allowed: mlp, lenet"),
        ("squeezenet1_1", r"squeezenet1_1 cannot learn from inputs of \(1, 8, 8\)"),
    ],
)
def test_what_is_wrong_with_a_model_is_said_in_one_line(own: str, model: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        build_it(model.format(own=own))
    assert caught.value.key == "task.model"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "option", "words"),
    [
        ("mlp", "hiden", "did you mean 'hidden'.*allowed: hidden"),
        ("lenet", "hidden", "allowed: none"),
        ("{own}:good", "height", "allowed: width"),
        ("mlp", "num_classes", "takes no 'num_classes'"),
    ],
)
def test_an_unknown_option_is_named(own: str, model: str, option: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        build_it(model.format(own=own), {option: 3})
    assert caught.value.key == f"task.model_options.{option}"


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 32, 32), (3, 8, 8), (3, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", ["mlp", "lenet"])
def test_ours_take_all_usual_images(name: str, shape: tuple[int, int, int]) -> None:
    model = models.build(name, {}, shape, num_classes=7)
    assert model(torch.zeros(3, *shape)).shape == (3, 7)


def test_lenet_is_lenet_5() -> None:
    model = models.build("lenet", {}, (1, 28, 28), num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_706
    own_size = models.build("lenet", {}, (1, 32, 32), num_classes=10)
    assert sum(parameter.numel() for parameter in own_size.parameters()) == 61_706


def test_hidden_layers_are_an_option() -> None:
    model = models.build("mlp", {"hidden": [5, 6]}, (1, 2, 2), num_classes=3)
    assert [tuple(parameter.shape) for parameter in model.parameters()][::2] == [(5, 4), (6, 5), (3, 6)]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_of_torchvision_sees_three_channels_and_the_datas_classes(channels: int) -> None:
    data = pictures(20, (channels, 32, 32))
    config = Classification(model="shufflenet_v2_x0_5", batch_size=4)
    task = build(config, 0, data)
    params = task.initial()
    loss, error = task.learner(0, params).minibatch(0)
    assert 0.5 < loss < 4
    assert error in (0, 0.25, 0.5, 0.75, 1)


def test_auxiliary_outputs_are_refused_until_they_are_off() -> None:
    config = Classification(model="googlenet", model_options={"init_weights": False})
    with pytest.raises(ScenarioError, match=r"returns GoogLeNetOutputs.*aux_logits: false"):
        build(config, 0, pictures(10, (1, 32, 32)))
    config.model_options["aux_logits"] = False
    assert build(config, 0, pictures(10, (1, 32, 32))).size > 5e6


def test_torchvision_is_imported_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> None:
        raise AssertionError("torchvision was asked for")

    monkeypatch.setattr(models, "torchvision", asked)
    monkeypatch.setattr(mnist_files, "torchvision", asked)
    config = Classification(model="lenet")
    build(config, 0, load(config))
    for path in Path(models.__file__).parent.glob("*.py"):
        imported = [line for line in path.read_text().splitlines() if line.lstrip().startswith("import torchvision")]
        assert all(line.startswith(" ") for line in imported)
        assert not imported or path.name == "torchvision_import.py"


def sparse(num_classes: int) -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
    module.register_buffer("adjacency", torch.eye(3).to_sparse())
    return module


def test_a_sparse_buffer_is_refused_in_one_line() -> None:
    with pytest.raises(ScenarioError, match=r"a buffer adjacency of torch\.sparse_coo; buffers must be dense"):
        models.build(f"{__name__}:sparse", {}, (1, 8, 8), 10)
