"""Small scenarios for the tests of the Python interface, as mappings."""

from __future__ import annotations

from typing import Any

BOWL: dict[str, Any] = {
    "name": "bowl",
    "seed": 3,
    "task": {"name": "quadratic", "curvature": [1.0, 4.0], "noise": 0.1},
    "algorithm": {"name": "asgd", "n_sync": 2},
    "workers": 2,
    "budget": {"minibatches": 40},
    "backend": "sim",
    "hardware": {"compute": {"step_s": 0.01}},
}
DIGITS: dict[str, Any] = {
    **BOWL,
    "name": "digits",
    "task": {
        "name": "classification",
        "dataset": "digits",
        "model": "mlp",
        "batch_size": 16,
        "train_samples": 256,
        "optimizer": {"name": "SGD", "lr": 0.05},
    },
    "evaluate": {"every_minibatches": 20, "parameters": ["server"]},
}
BACKENDS = ("sim", "inline", "process")


def on(backend: str, scenario: dict[str, Any] = BOWL) -> dict[str, Any]:
    """The scenario on a backend: only simulations keep its hardware, and inline has no evaluations on the way."""
    found = {**scenario, "backend": backend, "hardware": scenario["hardware"] if backend == "sim" else {}}
    return {key: value for key, value in found.items() if key != "evaluate" or backend != "inline"}
