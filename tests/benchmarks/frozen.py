"""Frozen: bytes of a push and minibatches/s of a network of which 1% is trained, and of all of it

Each is predicted by the simulator on stated hardware and measured on emulated devices, which take the stated times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.scenario import Scenario
from tests.benchmarks.report import Row

INPUTS, HIDDEN, CLASSES = 1000, 1024, 10
REPEATS = 3
HARDWARE = {
    "compute": {"step_s": 0.02}, "link": {"latency_s": 0.0005, "bandwidth_bytes_per_s": 1e8},
    "server": {"push_bytes_per_s": 1e9},
}  # fmt: skip
TRAINED = {"all of it": ("whole", 100), "1% of it": ("head", 500)}  # and minibatches of a run of some five seconds


def whole(num_classes: int) -> nn.Module:
    """A million parameters, all trained."""
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_classes))


def head(num_classes: int) -> nn.Module:
    """The same network, of which the last layer is trained."""
    model = whole(num_classes)
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


def vectors() -> dict[str, Tensor]:
    """Noise, which the scenario names."""
    draw = torch.Generator().manual_seed(0)
    found = {f"{split}_images": torch.randn(256, INPUTS, generator=draw) for split in ("train", "test")}
    return found | {f"{split}_labels": torch.arange(256) % CLASSES for split in ("train", "test")}


class Found(NamedTuple):
    """Bytes of each push, and minibatches/s."""

    push_bytes: float
    rate: float


def run(model: str, minibatches: int, backend: Any) -> Found:
    """Two workers that push after each minibatch."""
    here = "tests.benchmarks.frozen"
    task = {
        "name": "classification", "dataset": f"{here}:vectors", "model": f"{here}:{model}", "batch_size": 4,
        "optimizer": {"name": "SGD", "lr": 0.01},
    }  # fmt: skip
    scenario = Scenario.model_validate({
        "name": "frozen", "task": task, "algorithm": {"name": "asgd", "n_sync": 1}, "workers": 2,
        "budget": {"minibatches": minibatches}, "backend": backend, "hardware": HARDWARE,
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        summary = execute(scenario, Path(folder) / "run")
        effects = tables.read(Path(folder) / "run", "effects")
    pushes = effects[(effects["kind"] == "push") & (effects["version"] > 0)]
    return Found(float(pushes["bytes"].mean()), float(summary["minibatches_per_s"]))


def measure(tiny: bool) -> Iterator[Row]:
    """Bytes, rates, and how far the prediction is off."""
    found: dict[str, tuple[Found, list[Found]]] = {}
    for what, (model, whole_budget) in TRAINED.items():
        budget = 10 if tiny else whole_budget
        predicted = run(model, budget, "sim")
        emulated = {"name": "process", "device": "emulated"}
        measured = [run(model, budget, emulated) for _ in range(1 if tiny else REPEATS)]
        found[what] = predicted, measured
        who = f"of a network of a million parameters that trains {what}"
        yield Row(f"bytes of a push {who}, predicted", [predicted.push_bytes], "B", told=False)
        yield Row(f"bytes of a push {who}, measured", [each.push_bytes for each in measured], "B")
        yield Row(f"minibatches/s of two workers {who}, predicted", [predicted.rate])
        yield Row(f"minibatches/s of two workers {who}, measured on emulated devices", [each.rate for each in measured])
        yield Row(f"the same, measured over predicted ({what})", [each.rate / predicted.rate for each in measured])
    (all_predicted, all_measured), (few_predicted, few_measured) = found.values()
    pairs = zip(few_measured, all_measured, strict=True)
    yield Row("1% trained over all trained, minibatches/s, predicted", [few_predicted.rate / all_predicted.rate])
    yield Row("1% trained over all trained, minibatches/s, measured", [few.rate / every.rate for few, every in pairs])
