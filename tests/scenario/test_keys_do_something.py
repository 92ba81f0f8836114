"""Each key of the task, the algorithm and the optimizer changes the run, or is refused, or said to be without effect.

Two values of each key, beside push: delta and push: gradient: parameters or times differ, or a line says why not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.whole import sample

Values = tuple[Any, Any]
SGD_KEYS: dict[str, Values] = {
    "lr": (0.05, 0.1), "momentum": (0, 0.9), "weight_decay": (0, 0.5), "maximize": (False, True),
}  # fmt: skip
OPTIMIZERS: dict[str, tuple[dict[str, Any], dict[str, Values]]] = {
    "SGD": ({"lr": 0.05}, SGD_KEYS),
    "SGD nesterov": (
        {"lr": 0.05, "momentum": 0.9}, {"nesterov": (False, True), "dampening": (0, 0.5)},
    ),
    "Adam": (
        {"lr": 0.05},
        {"betas": ([0.9, 0.99], [0.5, 0.9]), "eps": (1e-8, 0.5), "amsgrad": (False, True), "weight_decay": (0, 0.5)},
    ),
    "AdamW": ({"lr": 0.05, "weight_decay": 0}, {"weight_decay": (0, 0.5)}),
    "RMSprop": (
        {"lr": 0.05},
        {"alpha": (0.99, 0.5), "centered": (False, True), "momentum": (0, 0.9), "weight_decay": (0, 0.5)},
    ),
    "Adagrad": ({"lr": 0.05}, {"lr_decay": (0, 0.5), "initial_accumulator_value": (0, 1), "weight_decay": (0, 0.5)}),
    "NAdam": ({"lr": 0.05}, {"momentum_decay": (0.004, 0.5)}),
    "NAdam decayed": ({"lr": 0.05, "weight_decay": 0.1}, {"decoupled_weight_decay": (False, True)}),
    "ASGD": ({"lr": 0.05}, {"lambd": (1e-4, 0.5), "alpha": (0.75, 0.1), "weight_decay": (0, 0.5)}),
    "Adafactor": ({"lr": 0.05}, {"beta2_decay": (-0.8, -0.1), "d": (1.0, 0.1), "weight_decay": (0, 0.5)}),
    "Rprop": ({"lr": 0.05}, {"etas": ([0.5, 1.2], [0.1, 2.0]), "step_sizes": ([1e-6, 50], [1e-6, 0.06])}),
}  # fmt: skip
TASK: dict[str, Values] = {
    "batch_size": (8, 16), "data": ("shared", "sharded"), "train_samples": (600, 300), "scale": (1, 2),
    "model": ("mlp", "lenet"), "size_bytes": (10_000, 10_000_000), "batch_norm": ("local", "server"),
    "precision": ("float32", "bfloat16"), "clip": (None, {"norm": 0.01}), "biases": (None, {"lr": 3.0}),
    "schedule": (None, {"name": "step", "every": 2, "factor": 0.1}),
    "schedule.clock": (
        {"name": "step", "every": 2, "factor": 0.1}, {"name": "step", "every": 2, "factor": 0.1, "clock": "versions"},
    ),
}  # fmt: skip
ALGORITHM: dict[str, Values] = {
    "n_sync": (2, 3), "momentum_at_fetch": ("keep", "reset"), "rhythm": ({"n_fetch": 2, "n_push": 4}, {"n_sync": 4}),
    "rule.scale": ([{"name": "scale", "factor": 0.5}], [{"name": "scale", "factor": 1.0}]),
    "rule.momentum": ([{"name": "scale"}], [{"name": "scale"}, {"name": "momentum", "beta": 0.5}]),
    "rule.nesterov": (
        [{"name": "momentum", "beta": 0.5}], [{"name": "momentum", "beta": 0.5, "nesterov": True}],
    ),
    "bound": (0, 4), "depth": (1, 3),
}  # fmt: skip
PUSHES = ("delta", "gradient")
CASES = (
    [("optimizer", f"{name}: {key}", push, n) for name, (_, keys) in OPTIMIZERS.items() for key in keys
     for push in PUSHES for n in (1, 2)]
    + [("task", key, push, 2) for key in TASK for push in PUSHES]
    + [("algorithm", key, push, 2) for key in ALGORITHM for push in PUSHES]
)  # fmt: skip


def of(section: str, key: str, push: str, n_sync: int, value: Any, backend: str = "sim") -> dict[str, Any]:
    """A scenario of two workers with that value."""
    rule: list[Any] = [{"name": "scale"}] if push == "delta" else [{"name": "sgd", "lr": 0.02}]
    task: dict[str, Any] = {
        "name": "classification", "dataset": "digits", "train_samples": 600, "batch_size": 8,
        "optimizer": {"name": "SGD", "lr": 0.05},
    }  # fmt: skip
    algorithm: dict[str, Any] = {"name": "asgd", "n_sync": n_sync, "push": push, "rule": rule}
    if section == "optimizer":
        name, _, option = key.partition(": ")
        options = OPTIMIZERS[name][0]
        task["optimizer"] = {"name": name.split()[0], **options, option: value}
    elif section == "task":
        task[key.partition(".")[0]] = value
    elif key == "rhythm":
        del algorithm["n_sync"]
        algorithm |= value
    elif key.startswith("rule"):
        algorithm["rule"] = [*value, *(rule if push == "gradient" else [])]
    else:
        algorithm |= {"name": {"bound": "ssp", "depth": "downpour"}.get(key, "asgd"), key: value}
        if key == "depth":  # several pushes a fetch
            del algorithm["n_sync"]
            algorithm |= {"n_fetch": 6, "n_push": 1}
    if key == "momentum_at_fetch":
        task["optimizer"]["momentum"] = 0.9
    if key == "batch_norm":
        task["model"] = "tests.tasks.test_buffers:normalised"
    speeds = {"speeds": [1.0, 0.3]} if backend == "sim" else {}
    link = {"latency_s": 0.004, "bandwidth_bytes_per_s": 1e8}
    return {
        "name": "keys", "task": task, "algorithm": algorithm, "workers": 2, "budget": {"minibatches": 24},
        "backend": backend, "hardware": {"compute": {"step_s": 0.001}, "link": link, **speeds},
    }  # fmt: skip


@pytest.mark.parametrize(("section", "key", "push", "n_sync"), sample(CASES, 14))
def test_two_values_of_a_key_are_two_runs_or_a_line(
    tmp_path: Path, section: str, key: str, push: str, n_sync: int
) -> None:
    values = {
        "optimizer": lambda: OPTIMIZERS[key.partition(": ")[0]][1][key.partition(": ")[2]],
        "task": lambda: TASK[key], "algorithm": lambda: ALGORITHM[key],
    }[section]()  # fmt: skip
    found, refused = [], ""
    for place, value in enumerate(values):
        try:
            scenario = Scenario.model_validate(of(section, key, push, n_sync, value))
            summary = execute(scenario, tmp_path / str(place))
        except (ScenarioError, ValueError) as error:
            refused = str(error)
            break
        if any(line.startswith(("task.optimizer:", f"{section}.{key}:")) for line in summary["warnings"]):
            return
        found.append((summary["makespan_s"], final_params(tmp_path / str(place))))
    if refused:
        assert key.rpartition(": ")[2].split(".")[0] in refused or "push: gradient" in refused
        return
    (one_s, one), (other_s, other) = found
    assert one_s != other_s or one.shape != other.shape or not np.array_equal(one, other), "the key does nothing"
