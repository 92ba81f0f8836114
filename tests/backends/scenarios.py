"""Small scenarios for the tests of backends, as values rather than files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asgd_lab.backends.run import execute
from asgd_lab.scenario import Scenario

QUADRATIC = {
    "name": "quadratic",
    "curvature": [1.0, 0.5, 0.1, 0.02],
    "noise": 0.1,
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
}
DIGITS = {
    "name": "classification",
    "dataset": "digits",
    "model": "mlp",
    "batch_size": 16,
    "train_samples": 256,
    "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
}
TIMING = {"name": "timing", "size_bytes": 1000, "step_s": 0.001}


def scenario(**parts: Any) -> Scenario:
    """A scenario on the inline backend unless said otherwise."""
    base = {
        "name": "test",
        "task": QUADRATIC,
        "algorithm": {"name": "asgd", "n_sync": 3},
        "budget": {"minibatches": 40},
        "backend": "inline",
        "hardware": {"compute": {"distribution": "lognormal", "cv": 0.5, "step_s": 0.001}},
    }
    parts = {**base, **parts}
    if parts["task"]["name"] == "timing" and "hardware" not in parts:
        parts["hardware"] = {}
    return Scenario.model_validate(parts)


def run(out: Path, **parts: Any) -> dict[str, Any]:
    """Run such a scenario and return its summary."""
    return execute(scenario(**parts), out)
