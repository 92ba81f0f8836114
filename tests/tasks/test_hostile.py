"""What hostile users bring trains as a plain loop, is refused before it is trained, or is doubted in a line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asgd_lab import tasks
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from asgd_lab.streams import key
from asgd_lab.tasks.base import Task
from asgd_lab.tasks.feeds import walk
from asgd_lab.tasks.flat import Layout
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from tests.tasks import hostile
from tests.tasks.configs import Classification, Optimizer, Quadratic
from tests.whole import sample

STEPS, BATCH, SEED = 12, 8, 3
OWN = hostile.__name__


def stated(model: str, loss: str | None, optimizer: str, backend: str, **others: Any) -> Scenario:
    name = optimizer if hasattr(torch.optim, optimizer) else f"{OWN}:{optimizer}"
    task = {
        "name": "classification", "dataset": f"{OWN}:data", "model": f"{OWN}:{model}", "batch_size": BATCH,
        "optimizer": {"name": name, "lr": 0.05}, "loss": None if loss is None else f"{OWN}:{loss}",
    }  # fmt: skip
    if backend == "sim":
        others = {"hardware": {"compute": {"step_s": 0.001}}, **others}
    return Scenario.model_validate({
        "name": model, "seed": SEED, "task": task, "algorithm": {"name": "sgd", "n_sync": STEPS},
        "budget": {"minibatches": STEPS}, "backend": backend, **others,
    })  # fmt: skip


def plain(model: str, loss: str | None, optimizer: str) -> tuple[list[Tensor], list[Tensor]]:
    """Trained parameters before and after a loop that anybody would write."""
    data = hostile.data()
    seed_all(key(SEED, "initial"))
    network: nn.Module = getattr(hostile, model)(num_classes=4)
    network.train()
    trained = [each for each in network.parameters() if each.requires_grad]
    before = [each.detach().clone() for each in trained]
    loss_of: Any = cross_entropy if loss is None else getattr(hostile, loss)
    made: Any = getattr(torch.optim, optimizer, None) or getattr(hostile, optimizer)
    stepper, order = made(network.parameters(), lr=0.05), walk(SEED, 0, 48, BATCH, torch.device("cpu"), None)
    for step in range(STEPS):
        seed_all(key(SEED, "model", 0, step))
        stepper.zero_grad()
        loss_of(network(data["train_images"][order(step)]), data["train_labels"][order(step)]).backward()
        stepper.step()
    return before, [each.detach() for each in trained]


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, "sim") for name in hostile.TRAINED] + sample([(name, "process") for name in hostile.TRAINED], 2),
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_one_worker_ends_with_the_bits_of_a_plain_loop(tmp_path: Path, name: str, backend: str) -> None:
    with preserving_generators():
        before, after = plain(*hostile.TRAINED[name])
    summary = execute(stated(*hostile.TRAINED[name], backend), tmp_path / "run")
    vector = torch.from_numpy(final_params(tmp_path / "run")).clone()
    views = Layout.of(each.shape for each in before).views(vector)
    for start, end, view in zip(before, after, views, strict=False):
        assert torch.equal(start + (end - start), view)  # as the server adds it
    assert summary["warnings"] == []
    assert {"test_loss", "train_loss"} <= summary["final"].keys()


def config(
    model: str = "Net", data: str = "vectors", loss: str | None = None, optimizer: str = "SGD", clip: Any = None,
    options: dict[str, Any] | None = None,
) -> Classification:  # fmt: skip
    from asgd_lab.task_keys.optimizers import Clip

    return Classification(
        model=f"{OWN}:{model}", dataset=f"{OWN}:data", dataset_options={"kind": data}, batch_size=BATCH,
        loss=None if loss is None else f"{OWN}:{loss}", clip=None if clip is None else Clip(**clip),
        optimizer=Optimizer(
            optimizer if hasattr(torch.optim, optimizer) else f"{OWN}:{optimizer}", {"lr": 0.05, **(options or {})}
        ),
    )  # fmt: skip


def built(config: Classification) -> Task:
    return tasks.build(config, SEED, tasks.load(config))


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_what_would_fail_later_is_refused_before_anything_is_trained(name: str) -> None:
    given, at, words = hostile.REFUSED[name]
    with pytest.raises(ScenarioError, match=words) as caught:
        built(config(**given))
    assert caught.value.key == at
    assert "\n" not in str(caught.value)


def pushing_gradients(config: Classification) -> Task:
    task = tasks.build(config, SEED, tasks.load(config), checked=True)
    task.check(gradients=True)
    return task


@pytest.mark.parametrize(
    ("given", "at", "words"),
    [
        ({"model": "HasATeacher"}, "algorithm.push", "changes parameters in its forward or backward pass"),
        ({"model": "BoundsItsNorm"}, "algorithm.push", "changes parameters in its forward or backward pass"),
        ({"model": "SteppedBackward"}, "algorithm.push", "changes parameters in its forward or backward pass"),
        ({"model": "StartsFromItsData"}, "algorithm.push", "changes parameters in its forward or backward pass"),
        ({"optimizer": "AdamW"}, "task.optimizer.weight_decay", "is 0.01 in AdamW.*set it to 0"),
        ({"options": {"maximize": True}}, "task.optimizer.maximize", "is True in SGD.*set it to false"),
    ],
)
def test_what_moves_parameters_without_a_gradient_is_refused_where_only_gradients_are_pushed(
    given: dict[str, Any], at: str, words: str
) -> None:
    built(config(**given))
    with pytest.raises(ScenarioError, match=words) as caught:
        pushing_gradients(config(**given))
    assert caught.value.key == at
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("optimizer", "options", "is_doubted"),
    [
        ("Bounded", {}, True), ("ASGD", {}, True), ("SGD", {"momentum": 0.9}, False), ("AssignsData", {}, False),
        ("AdamW", {"weight_decay": 0.0}, False),
        *((name, {}, False) for name in ("Adam", "Rprop", "RMSprop", "Adagrad")),
    ],
)  # fmt: skip
def test_a_step_that_moves_parameters_of_zero_gradients_is_doubted_where_only_gradients_are_pushed(
    optimizer: str, options: dict[str, Any], is_doubted: bool
) -> None:
    chosen = config(optimizer=optimizer, options=options)
    assert built(chosen).doubts == []
    doubts = pushing_gradients(chosen).doubts
    assert [line.split(": ")[0] for line in doubts] == ["algorithm.push"] * is_doubted
    bowl = tasks.build(Quadratic(optimizer=chosen.optimizer), SEED, {})
    bowl.check(gradients=True)
    assert len(bowl.doubts) == is_doubted


@pytest.mark.parametrize("model", ["FreezesLate", "UnfreezesLate", "FreezesAllLate"])
def test_another_choice_of_trained_parameters_fails_the_minibatch_where_it_is_made(tmp_path: Path, model: str) -> None:
    with pytest.raises(
        RunFailed, match=r"minibatch 7 failed: the model sets requires_grad of its parameter \w+\.weight"
    ):
        execute(stated(model, None, "SGD", "sim"), tmp_path / "run")


@pytest.mark.parametrize("name", hostile.DOUBTED)
def test_numbers_that_a_plain_loop_would_tell_otherwise_are_doubted_in_a_line(name: str) -> None:
    model, loss, key = hostile.DOUBTED[name]
    doubts = built(config(model, loss=loss)).doubts
    assert [line.split(": ")[0] for line in doubts] == ([] if key is None else [key])


def test_a_doubt_is_kept_in_the_summary(tmp_path: Path) -> None:
    summary = execute(stated("Counts", None, "SGD", "sim"), tmp_path / "run")
    (line,) = summary["warnings"]
    assert "evaluations take it as it is at the start" in line


def test_data_are_the_same_whatever_was_drawn_before_and_nothing_global_is_disturbed() -> None:
    found = []
    for seed in range(2):
        seed_all(seed)
        found.append(tasks.load(config(data="drawn"))["train_images"])
        assert random.random() == random.Random(seed).random()
        assert np.random.rand() == np.random.RandomState([seed, 0]).rand()
    assert torch.equal(*found)


def test_a_count_that_changes_something_later_is_refused_where_there_are_checkpoints() -> None:
    built(config("Quantised")).check_resume()
    for model in ("CountsForLater", "CountsInAGlobal", "CountsInItsClass"):
        with pytest.raises(ScenarioError, match="keeps something from one minibatch to the next"):
            built(config(model)).check_resume()
