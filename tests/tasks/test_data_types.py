"""Every type of data reaches the model and the loss with its values; errors are told where they mean something."""

from __future__ import annotations

import math
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.tasks import build, load
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.evaluation import measure
from asgd_lab.tasks.feeds import Stored
from asgd_lab.tasks.objective import Objective
from asgd_lab.tasks.samples import pick
from tests.backends.scenarios import run, scenario
from tests.tasks.configs import Classification
from tests.whole import sample

SAMPLES, TOKENS, WORDS = 24, 5, 7
SEEN: list[Tensor] = []


class Noting(nn.Module):
    """Notes what it is given, and maps it to outputs of a shape."""

    def __init__(self, *outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*outputs))

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(x)
        scale = torch.view_as_real(x).sum(-1) if x.is_complex() else x.double() % 3
        return self.weight * scale.flatten(1).mean(1).float().view(-1, *[1] * self.weight.dim())


def make(num_classes: int, outputs: list[int] | None = None) -> nn.Module:
    return Noting(*(outputs or [num_classes]))


class Pair(Noting):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), {"more": x}


def pair(num_classes: int) -> nn.Module:
    return Pair(num_classes)


def first_of_two(outputs: Any, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs[0], labels)


def squares(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs - labels.view(len(labels), -1)[:, :1].float()) ** 2).mean()


def binary(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.flatten(), (labels.flatten() > 0).float())


def weighted(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.linspace(1, 2, outputs.shape[1])
    return functional.cross_entropy(outputs, labels, weights, reduction="sum"), weights[labels].sum()


CHOSEN: dict[str, Data] = {}


def data() -> Data:
    return dict(CHOSEN)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("types_of_mine")
    vars(module).update(make=make, pair=pair, data=data, squares=squares, binary=binary, weighted=weighted,
                        first_of_two=first_of_two)  # fmt: skip
    monkeypatch.setitem(sys.modules, "types_of_mine", module)
    SEEN.clear()
    CHOSEN.clear()


def chosen(inputs: Tensor, labels: Tensor) -> Data:
    CHOSEN.update({f"{split}_{part}": value for split in ("train", "test")
                   for part, value in (("images", inputs), ("labels", labels))})  # fmt: skip
    return load(Classification(dataset="types_of_mine:data"))


INPUTS = {
    **{torch.float32: torch.float32, torch.float64: torch.float32, torch.float16: torch.float32},
    **{torch.bfloat16: torch.float32, torch.uint8: torch.uint8, torch.bool: torch.bool, torch.int8: torch.int8},
    **{torch.int16: torch.int16, torch.int32: torch.int32, torch.int64: torch.int64, torch.uint16: torch.int32},
    **{torch.uint32: torch.int64, torch.uint64: torch.int64, torch.complex64: torch.complex64},
}
LARGEST = {torch.int64: 2**62 + 1, torch.uint64: 2**62 + 1, torch.uint32: 2**32 - 3, torch.int32: 2**31 - 3}
LABELS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# shape of a label, of an output, loss, and whether an error is defined
TASKS: list[tuple[tuple[int, ...], list[int], str | None, bool]] = [
    ((), [2], None, True),
    ((), [9], None, True),  # more than the labels name
    ((TOKENS,), [2, TOKENS], None, True),
    ((), [2], "first", True),
    ((), [9], "first", False),  # an argmax over what need not be classes
    ((), [1], "binary", False),
    ((1,), [1], "binary", False),
    ((TOKENS,), [TOKENS], "binary", False),
    ((), [2], "squares", False),  # no output of which answers by being the largest
    ((TOKENS,), [3], "squares", False),
]


def inputs_of(dtype: torch.dtype) -> Tensor:
    end = LARGEST.get(dtype, 2 if dtype == torch.bool else 120)
    numbers = [[end - 1 - (7 * row + column) % 60 if dtype != torch.bool else (row + column) % 2
                for column in range(TOKENS)] for row in range(SAMPLES)]  # fmt: skip
    return torch.tensor(numbers, dtype=torch.complex64).mul(1 + 1j) if dtype.is_complex else torch.tensor(
        numbers, dtype=torch.int64).to(dtype)  # fmt: skip


def test_pixels_are_numbers_to_compute_with_and_other_bytes_stay_bytes() -> None:
    pixels = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8)
    for shape, dtype in (((2, 3, 4, 4), torch.float32), ((2, 48), torch.uint8)):
        kept = chosen(pixels.view(shape), torch.arange(2))
        assert kept["train_images"].dtype == torch.uint8
        assert pick(kept, "train", torch.arange(2)).dtype == dtype


@pytest.mark.parametrize("dtype", INPUTS)
def test_inputs_reach_the_model_with_every_value(dtype: torch.dtype) -> None:
    inputs = inputs_of(dtype)
    kept = chosen(inputs, torch.arange(SAMPLES) % 2)
    task = build(Classification(model="types_of_mine:make", batch_size=SAMPLES), 0, kept)
    SEEN.clear()
    learner = task.learner(0, task.initial())
    learner.minibatch(0)
    (seen,) = SEEN
    assert seen.dtype == INPUTS[dtype]
    order = learner.batches.order(0)  # type: ignore[attr-defined]
    assert torch.equal(seen, inputs.to(INPUTS[dtype])[order])
    exact = [row if dtype.is_complex else [int(each) for each in row] for row in seen.tolist()]
    assert exact == [inputs[int(index)].tolist() for index in order]


@pytest.mark.parametrize(
    ("dtype", "label", "shapes"),
    sample(
        [(dtype, label, shapes) for dtype in INPUTS for label in [*LABELS, *FLOATS] for shapes in TASKS
         if shapes[2] or label not in FLOATS], 60,
    ),
)  # fmt: skip
def test_every_type_learns_and_errs_where_that_means_something(
    dtype: torch.dtype, label: torch.dtype, shapes: tuple[tuple[int, ...], list[int], str | None, bool]
) -> None:
    shape, outputs, loss, has_error = shapes
    labels = (torch.arange(SAMPLES * math.prod(shape)) % 2).view(SAMPLES, *shape).to(label)
    names = {None: None, "first": "types_of_mine:weighted", "binary": "types_of_mine:binary"}
    if loss == "first" and label in FLOATS:
        return
    config = Classification(
        model="types_of_mine:make", model_options={"outputs": outputs}, batch_size=5,
        loss=names.get(loss, f"types_of_mine:{loss}"),
    )  # fmt: skip
    task = build(config, 0, chosen(inputs_of(dtype), labels))
    found = task.learner(0, task.initial()).minibatch(0)
    assert math.isfinite(found[0])
    has_error = has_error and label not in FLOATS
    assert task.has_error == has_error
    assert math.isnan(found[1]) != has_error
    rows = {(split, metric) for split, metric, _ in task.evaluate(task.initial())}
    assert (("test", "error") in rows) == has_error
    assert ("test", "loss") in rows


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (torch.tensor(3.0), torch.arange(2), "samples in their first dimension"),
        (torch.ones(2, 2), torch.tensor(1), "samples in their first dimension"),
        (torch.eye(3).to_sparse(), torch.arange(3), "must be a dense tensor"),
        (torch.full((2, 2), 1e39, dtype=torch.float64), torch.arange(2), "beyond what float32 holds"),
        (1.7e9 + torch.arange(64.0, dtype=torch.float64)[:, None], torch.arange(64), "off by up to 63 where samples"),
        (torch.ones(8, 2), 1e9 + torch.arange(8.0, dtype=torch.float64), "train_labels is float64"),
        # As pandas makes a column of numbers of users with a hole in it: neighbours would be one.
        (1e8 + 1e5 * torch.arange(64.0, dtype=torch.float64)[:, None] + 1, torch.arange(64), "integers as float64"),
        (torch.tensor([[2**63 + 1]], dtype=torch.uint64), torch.arange(1), "beyond 2\\*\\*63 - 1"),
    ],
)
def test_data_that_cannot_be_kept_are_refused_in_one_line(inputs: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        chosen(inputs, labels)


def test_float64_data_that_float32_tells_apart_are_kept() -> None:
    draw = torch.Generator().manual_seed(1)
    columns = torch.randn(64, 5, generator=draw, dtype=torch.float64) * torch.tensor([1.0, 1e-9, 1e9, 1.0, 0.0])
    columns[:, 3] += 1000.0
    columns[:, 4] = 0.1 + columns[:, 0] * 1e-17  # the same number, but for its last bit
    kept = chosen(columns, torch.arange(64))
    assert torch.equal(kept["train_images"], columns.float())


def test_a_label_that_is_no_class_is_refused_before_anything_is_tried() -> None:
    with pytest.raises(ScenarioError, match="train_labels has -1; classes are 0 or more, and -100"):
        build(Classification(model="types_of_mine:make"), 0, chosen(torch.ones(12, 3), torch.arange(12) - 1))


def test_what_a_model_returns_reaches_the_loss_as_it_is_and_is_refused_without_one() -> None:
    kept = chosen(torch.rand(SAMPLES, 4), torch.arange(SAMPLES) % 3)
    task = build(Classification(model="types_of_mine:pair", loss="types_of_mine:first_of_two"), 0, kept)
    loss, error = task.learner(0, task.initial()).minibatch(0)
    assert math.isfinite(loss)
    assert math.isnan(error)
    assert {metric for _, metric, _ in task.evaluate(task.initial())} == {"loss"}
    with pytest.raises(ScenarioError, match="returns tuple; its output must be one tensor"):
        build(Classification(model="types_of_mine:pair"), 0, kept)


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_target_error_without_an_error_is_refused_before_the_start(tmp_path: Path, backend: str) -> None:
    task = {"name": "classification", "dataset": "digits", "loss": "tests.tasks.test_data_types:of_ten",
            "model": "tests.tasks.test_data_types:twelve"}  # fmt: skip
    stated = scenario(task=task, backend=backend, budget={"target_error": 0.5, "minibatches": 9})
    with pytest.raises(ScenarioError, match="needs a task with an error") as caught:
        execute(stated, tmp_path / "run")
    assert caught.value.key == "budget.target_error"
    summary = run(tmp_path / "other", task=task, backend=backend, budget={"minibatches": 9})
    assert "test_error" not in summary["final"]


def twelve(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))


def of_ten(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs[:, :10], labels)


@given(
    chunk=st.integers(1, 40), samples=st.integers(1, 40), ignored=st.floats(0, 0.9),
    kind=st.sampled_from(["ours", "tokens", "weighted"]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_a_metric_does_not_depend_on_the_chunks(chunk: int, samples: int, ignored: float, kind: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    shape = (samples, TOKENS) if kind == "tokens" else (samples,)
    labels = torch.randint(WORDS, shape, generator=draw)
    if kind != "weighted":
        labels[torch.rand(shape, generator=draw) < ignored] = -100
    outputs = torch.randn(samples, WORDS, *shape[1:], generator=draw)
    split = {"train_images": outputs, "train_labels": labels}
    objective = Objective(weighted if kind == "weighted" else None, labels, WORDS)

    def of(size: int) -> dict[str, float]:
        return measure(nn.Identity(), objective, Stored(split), "train", torch.arange(samples), labels, size)

    found, counted = of(chunk), labels != -100
    if not counted.any():
        assert math.isnan(found["loss"])
        assert "error" not in found
        return
    weights = torch.linspace(1, 2, WORDS) if kind == "weighted" else None
    assert found["loss"] == pytest.approx(functional.cross_entropy(outputs, labels, weights).item(), rel=1e-5)
    expected = outputs.argmax(1).ne(labels)[counted].float().mean().item()
    assert found["error"] == pytest.approx(expected)


def test_a_loss_that_depends_on_the_minibatch_is_evaluated_in_the_tasks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def counted(outputs: Tensor, labels: Tensor) -> Tensor:
        sizes.append(len(labels))
        return squares(outputs, labels)

    monkeypatch.setattr(sys.modules["types_of_mine"], "squares", counted)
    kept = chosen(torch.rand(SAMPLES, 4), torch.arange(SAMPLES) % 3)
    task = ClassificationTask(
        Classification(model="types_of_mine:make", loss="types_of_mine:squares", batch_size=10), 0, kept
    )
    task.evaluate(task.initial())
    assert sizes == [SAMPLES, *[10, 10, 4] * 2]  # first it is asked whether the largest output answers


@pytest.mark.parametrize("ignored", [-100, -1])
def test_labels_that_a_users_loss_ignores_are_no_answers(ignored: int) -> None:
    labels = torch.tensor([0, 1, 1, 0])
    outputs = functional.one_hot(labels).float()
    labels = torch.cat([labels, torch.full((4,), ignored)])
    outputs = torch.cat([outputs, outputs])
    own = partial(functional.cross_entropy, ignore_index=ignored)
    found = Objective(own, labels, 2).sums(outputs, labels)
    assert (found.wrong, found.labels) == (0, 4)


def proto(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(-outputs, labels)


def gauss(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.gaussian_nll_loss(outputs[:, 0], labels.float(), outputs[:, 1].exp())


def smooth(outputs: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return torch.nn.functional.cross_entropy(outputs, labels, label_smoothing=0.1, reduction="sum"), len(labels)


def focal(outputs: Tensor, labels: Tensor) -> Tensor:
    chosen = outputs.log_softmax(1).gather(1, labels[:, None])
    return -((1 - chosen.exp()) ** 2 * chosen).mean()


def one_hot(outputs: Tensor, labels: Tensor) -> Tensor:
    wanted = torch.nn.functional.one_hot(labels, outputs.shape[1]).float()
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, wanted)


def hinge(outputs: Tensor, labels: Tensor) -> Tensor:
    return (1 - (outputs[:, 1] - outputs[:, 0]) * labels).clamp(min=0).mean()


SIGNS = torch.arange(40) % 2 * 2 - 1


@pytest.mark.parametrize(
    ("own", "labels", "is_defined"),
    [
        (smooth, torch.arange(40) % 2, True),
        (focal, torch.arange(40) % 2, True),
        (one_hot, torch.arange(40) % 2, True),
        (torch.nn.functional.multi_margin_loss, torch.arange(40) % 2, True),
        (proto, torch.arange(40) % 2, False),
        (gauss, torch.arange(40) % 2, False),
        (hinge, SIGNS, False),
    ],
)
def test_an_error_under_a_users_loss_is_told_where_the_largest_output_is_the_answer(
    own: Any, labels: Tensor, is_defined: bool
) -> None:
    objective = Objective(own, labels, 2)
    outputs = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    assert objective.defines_error(outputs, labels) is is_defined
    assert objective.sums(outputs, labels).labels == (40 if is_defined else 0)
