"""Every point of a sweep is checked: a fault that only a later one has is found before the first is trained."""

from __future__ import annotations

from typing import Any

import pytest

import asgd_lab
from asgd_lab.tasks import datasets
from asgd_lab.tasks.classification import ClassificationTask
from tests.api.scenarios import BOWL, DIGITS
from tests.tasks import own_classes

OF_THREE: dict[str, Any] = {
    **BOWL, "workers": 3, "seed": 3, "task": {"name": "own", "task": f"{__name__}:ForThree"},
}  # fmt: skip
EVALUATED: dict[str, Any] = {"evaluate": {"every_minibatches": 20, "parameters": ["server"]}}
TINY = {"corpus_bytes": 3000, "context": 16, "batch_size": 2, "width": 8, "heads": 1, "layers": 1}
TEXT: dict[str, Any] = {**BOWL, "task": {"name": "text", "data": "sharded", **TINY}}


def limit(split: str, metric: str) -> dict[str, Any]:
    return {"split": split, "metric": metric, "patience": 3}


GOOD = limit("test", "loss")
# A scenario, the swept key, a value that is accepted and one that is refused, and the key that the error names.
CASES: dict[str, tuple[dict[str, Any], str, Any, Any]] = {
    "sharded": ({**DIGITS, "task": {**DIGITS["task"], "data": "sharded"}}, "workers", 2, 64),
    "dirichlet": (
        {**DIGITS, "workers": 4, "task": {**DIGITS["task"], "data": {"name": "dirichlet", "alpha": 0.1}}}, "seed", 0, 5,
    ),
    "spans of text": (TEXT, "workers", 2, 500),
    "a class of few workers": (
        OF_THREE, "workers", 3, 4,
    ),
    "a class of few seeds": (OF_THREE, "seed", 3, 4),
    "an unknown metric": ({**DIGITS, "budget": {"minibatches": 40, "early_stop": GOOD}}, "budget.early_stop.metric",
                          "error", "accuracy"),
    "an unknown split": ({**DIGITS, "budget": {"minibatches": 40, "early_stop": GOOD}}, "budget.early_stop.split",
                         "test", "validation"),
    "an early stop": (DIGITS, "budget.early_stop", GOOD, limit("test", "accuracy")),
    "a target": (DIGITS, "budget.target", {"split": "test", "metric": "error", "below": 0.1},
                 {"split": "test", "metric": "bleu", "above": 0.1}),
    "a metric of a bowl": ({**BOWL, **EVALUATED, "budget": {"minibatches": 40, "early_stop": GOOD}},
                           "budget.early_stop.metric", "loss", "error"),
    "no error in the pushes": (OF_THREE,
                               "budget.early_stop", limit("train", "loss"), limit("train", "error")),
}  # fmt: skip


class ForThree(own_classes.Plain):
    """Data for three workers and for small seeds, and no error."""

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        if workers > 3 or seed > 3:
            raise ValueError("there are no such data")
        return super().batch(worker, workers, seed, step)

    def loss(self, model: Any, batch: Any) -> Any:
        found = super().loss(model, batch)
        return found[0] if isinstance(found, tuple) and isinstance(found[1], dict) else found


def refused(scenario: dict[str, Any], changes: dict[str, Any]) -> str | None:
    try:
        asgd_lab.validate(scenario, changes)
    except asgd_lab.ScenarioError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_is_valid_exactly_if_all_its_points_are(name: str) -> None:
    scenario, key, good, bad = CASES[name]
    assert refused(scenario, {key: good}) is None
    assert refused(scenario, {f"sweep.{key}": [good]}) is None
    alone = refused(scenario, {key: bad})
    assert alone is not None
    said = alone.partition(": ")[2]
    for order in ([good, bad], [bad, good]):
        found = refused(scenario, {f"sweep.{key}": order})
        assert found is not None
        assert said in found
        assert "at the sweep's point" in found


def test_points_with_the_same_data_read_them_once_and_try_a_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, tried = [], []
    load, check = datasets.read, ClassificationTask.check
    monkeypatch.setattr(datasets, "read", lambda config: read.append(1) or load(config))
    monkeypatch.setattr(ClassificationTask, "check", lambda self, **how: tried.append(1) or check(self, **how))
    swept = {"sweep": {"task.optimizer.lr": [0.1, 0.2], "workers": [1, 2, 3], "seed": [0, 1, 2, 3]}}
    sharded = {**DIGITS, "task": {**DIGITS["task"], "data": "sharded"}}
    assert len(asgd_lab.validate(sharded, swept).names) == 24
    assert (len(read), len(tried)) == (1, 2)
