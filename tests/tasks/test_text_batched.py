"""Text in one call: replicas stacked by hand learn as alone to rounding, and the same seed gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call

from asgd_lab.backends.build import build_task
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.saved_model import final_params
from asgd_lab.tasks import batched
from asgd_lab.tasks.base import Learner
from asgd_lab.tasks.own import OwnTask
from asgd_lab.tasks.text import stacked
from asgd_lab.tasks.text.transformer import Transformer
from tests.backends.scenarios import scenario
from tests.tasks.test_text import TINY


def task_of(**keys: Any) -> OwnTask:
    found = build_task(scenario(task={**TINY, **keys}, backend="sim", workers=3))
    assert isinstance(found, OwnTask)
    return found


def learners(task: OwnTask) -> list[Learner]:
    return [task.learner(worker, task.initial().mul_(1 + worker / 10)) for worker in range(3)]


@pytest.mark.parametrize(("layers", "heads", "context"), [(1, 1, 16), (3, 4, 5), (2, 2, 1)])
def test_stacked_outputs_are_those_of_each_model_alone(layers: int, heads: int, context: int) -> None:
    torch.manual_seed(0)
    models = [Transformer(11, context, 8, layers, heads) for _ in range(3)]
    for model in models:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)  # norms and biases too
    ids = torch.randint(11, (4, 3, context))
    named = {name: torch.stack([dict(model.named_parameters())[name] for model in models])
             for name, _ in models[0].named_parameters()}  # fmt: skip
    found = stacked.outputs(heads, named, ids)
    for place, model in enumerate(models):
        own = functional_call(model, {name: each[place] for name, each in named.items()}, (ids[:, place],))
        torch.testing.assert_close(found[place], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"layers": 2, "heads": 4, "clip": {"norm": 0.5}, "schedule": {"name": "cosine", "length": 20, "warmup": 3}},
        {"optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9}},
    ],
)
def test_minibatches_in_one_call_are_those_taken_alone(keys: dict[str, Any]) -> None:
    task = task_of(**keys)
    alone, together = learners(task), learners(task)
    batch = task.batch()
    for first, steps in ((0, (2, 3, 1)), (3, (1, 2, 2))):
        found = batch.advance([(learner, first, count) for learner, count in zip(together, steps, strict=True)])
        for learner, count, (losses, errors) in zip(alone, steps, found, strict=True):
            own = [learner.minibatch(step) for step in range(first, first + count)]
            assert losses == pytest.approx([loss for loss, _ in own], rel=1e-4)
            assert errors == pytest.approx([error for _, error in own], abs=2 / 64)
    for one, other, start in zip(alone, together, learners(task), strict=True):
        moved = (one.params - start.params).norm()  # type: ignore[attr-defined]
        assert (one.params - other.params).norm() < 0.02 * moved  # type: ignore[attr-defined]


def test_a_batched_run_is_close_to_the_sequential_one_and_the_same_bytes_again(tmp_path: Path) -> None:
    def run(name: str, numerics: str) -> dict[str, Any]:
        stated = scenario(task=TINY, backend={"name": "sim", "numerics": numerics}, workers=4, seed=3,
                          algorithm={"name": "asgd", "n_sync": 3}, budget={"minibatches": 60})  # fmt: skip
        return execute(stated, tmp_path / name)

    one, two, other = run("one", "batched"), run("two", "batched"), run("other", "sequential")
    assert one["numerics"] == {"mode": "batched"}
    assert one["params_sha256"] == two["params_sha256"] != other["params_sha256"]
    assert one["final"]["test_loss"] == pytest.approx(other["final"]["test_loss"], rel=1e-3)
    assert torch.allclose(*(torch.from_numpy(final_params(tmp_path / name)) for name in ("one", "other")), atol=1e-2)
    assert run("auto", "auto")["numerics"].keys() == {"mode", "probed_ratio"}


def test_more_replicas_than_a_stack_holds_are_taken_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "_KEPT_BYTES", 0)
    task = task_of()
    alone, together = learners(task), learners(task)
    found = task.batch().advance([(learner, 0, 2) for learner in together])
    own = [[learner.minibatch(step)[0] for step in range(2)] for learner in alone]
    assert [losses for losses, _ in found] == [pytest.approx(losses, rel=1e-4) for losses in own]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"local": ["norm.*"]}, "the task has a key local"),
        ({"precision": "bfloat16"}, "the task has precision bfloat16"),
        ({"optimizer": {"name": "Adafactor"}}, "does not step element by element"),
    ],
)
def test_a_text_task_that_cannot_be_batched_says_so_in_one_line(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=f"^cannot be batched: .*{words}.*; use sequential$") as caught:
        task_of(**keys).batch()
    assert caught.value.key == "backend.numerics"
