"""Beside push: gradient, a key of the worker's own steps is refused where the server would never see it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tests.backends.scenarios import DIGITS, QUADRATIC, scenario

GRADIENT = {"name": "asgd", "n_sync": 3, "push": "gradient", "rule": [{"name": "sgd", "lr": 0.1}]}
PLAIN = {"name": "SGD", "lr": 0.1}
LOST: list[tuple[str, dict[str, Any]]] = [
    ("optimizer", {"optimizer": PLAIN | {"weight_decay": 0.5}}),
    ("optimizer", {"optimizer": {"name": "AdamW", "weight_decay": 0.1}}),
    ("schedule", {"schedule": {"name": "step", "every": 5}}),
    ("schedule", {"schedule": {"name": "cosine", "length": 5, "clock": "versions"}}),
    ("biases", {"biases": {"lr": 2.0}}),
    ("biases", {"biases": {"weight_decay": 0.0}}),
]


@pytest.mark.parametrize("algorithm", ["asgd", "downpour", "ssp", "sync_sgd"])
@pytest.mark.parametrize(("key", "parts"), LOST)
def test_what_the_server_would_never_see_is_refused(key: str, parts: dict[str, Any], algorithm: str) -> None:
    chosen = GRADIENT | {"name": algorithm} | ({"bound": 1} if algorithm == "ssp" else {})
    task = DIGITS | {"optimizer": PLAIN} | parts
    with pytest.raises(ValidationError, match=f"task.{key}.*does not reach the server"):
        scenario(task=task, algorithm=chosen)
    scenario(task=task, algorithm={"name": "asgd", "n_sync": 3})
    if key != "biases":
        with pytest.raises(ValidationError, match="does not reach the server"):
            scenario(task=QUADRATIC | {"optimizer": PLAIN} | parts, algorithm=chosen)


def test_a_momentum_that_no_step_feels_is_refused() -> None:
    task = QUADRATIC | {"optimizer": PLAIN | {"momentum": 0.9}}
    with pytest.raises(ValidationError, match="changes nothing beside push: gradient"):
        scenario(task=task, algorithm=GRADIENT | {"n_sync": 1})
    scenario(task=task, algorithm=GRADIENT)
    scenario(task=QUADRATIC | {"optimizer": PLAIN | {"weight_decay": 0.0}}, algorithm=GRADIENT)
