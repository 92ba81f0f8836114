"""Gradients: simulation with the real gradients, sequential and batched, against a bare PyTorch loop, on one thread.

Seconds are CPU time, which a busy neighbour disturbs less, and each run stands between two bare loops, since the
machine's speed drifts. All of a run is counted: building, recording, the final evaluation; and for `auto` its probe.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from asgd_lab import tasks
from asgd_lab.backends.run import execute
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import models
from asgd_lab.tasks.samples import pick
from tests.benchmarks.report import Row

SMALL = "tests.benchmarks.batched:small"
CASES = (("small conv net", SMALL, 16, 9_600), ("lenet", "lenet", 64, 4_800))
REPEATS = 3
MODES = ("sequential", "batched", "auto")


def scenario(model: str, batch: int, steps: int, workers: int, numerics: str) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "gradients",
            "task": {
                "name": "classification",
                "dataset": "digits",
                "model": model,
                "batch_size": batch,
                "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
            },
            "algorithm": {"name": "asgd", "n_sync": 10},
            "workers": workers,
            "budget": {"minibatches": steps},
            "backend": {"name": "sim", "numerics": numerics},
            "hardware": {"compute": {"distribution": "lognormal", "step_s": 0.01}},
        }
    )


def bare(model_name: str, batch: int, steps: int, data: dict[str, torch.Tensor]) -> float:
    """Seconds of the loop everybody writes: shuffled minibatches, loss, backward, step."""
    images, labels = pick(data, "train", torch.arange(len(data["train_labels"]))), data["train_labels"]
    model: nn.Module = models.build(model_name, {}, tuple(images.shape[1:]), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    began = time.process_time()
    per_epoch = len(labels) // batch
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(labels))
        index = order[step % per_epoch * batch : (step % per_epoch + 1) * batch]
        outputs = model(images[index])
        loss = cross_entropy(outputs, labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return time.process_time() - began


def simulated(configured: Scenario) -> float:
    """Seconds of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        execute(configured, Path(folder) / "run")
        return time.process_time() - began


def measure(tiny: bool) -> Iterator[Row]:
    """Seconds of a whole simulated run over those of a bare loop of as many steps."""
    cases, crews, repeats = (CASES[:1], (2,), 1) if tiny else (CASES, (8, 32), REPEATS)
    for name, model, batch, steps in cases:
        steps = 40 if tiny else steps
        data = tasks.load(scenario(model, batch, steps, 1, "sequential").task)
        bare(model, batch, steps // 10, data)
        for workers in crews:
            loops = [bare(model, batch, steps, data)]
            ratios: dict[str, list[float]] = {mode: [] for mode in MODES}
            for mode in MODES * repeats:
                took = simulated(scenario(model, batch, steps, workers, mode))
                loops.append(bare(model, batch, steps, data))
                ratios[mode].append(2 * took / (loops[-1] + loops[-2]))
            what = f"{name} at batch {batch}, {workers} workers, {steps:,} steps"
            yield Row(f"bare loop, {what}", loops, "s", told=False)
            for mode, ratio in ratios.items():
                yield Row(f"whole simulated run with real gradients, {mode}, {what}", ratio, "times the bare loop")
