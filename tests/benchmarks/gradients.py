"""Gradients: simulation with the real gradients, sequential and batched, against a bare PyTorch loop, on one thread.

Seconds are CPU time, which a busy neighbour disturbs less, and each run stands between two bare loops, since the
machine's speed drifts. All of a run is counted: building, recording, the final evaluation; and for `auto` its probe.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from asgd_lab import tasks
from asgd_lab.backends.run import execute
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import models
from tests.benchmarks.report import spread

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
    images, labels = data["train_images"], data["train_labels"]
    model: nn.Module = models.build(model_name, {}, tuple(images.shape[1:]), 10, batch)
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


def main() -> None:
    for name, model, batch, steps in CASES:
        data = tasks.load(scenario(model, batch, steps, 1, "sequential").task)
        bare(model, batch, steps // 10, data)
        for workers in (8, 32):
            loops = [bare(model, batch, steps, data)]
            ratios: dict[str, list[float]] = {mode: [] for mode in MODES}
            for mode in MODES * REPEATS:
                took = simulated(scenario(model, batch, steps, workers, mode))
                loops.append(bare(model, batch, steps, data))
                ratios[mode].append(2 * took / (loops[-1] + loops[-2]))
            print(
                f"{name} on digits at batch {batch}, {workers} workers, {steps} steps: bare loop "
                f"{spread(loops, 1, 's')}; times that: "
                + "; ".join(f"{mode} {spread(ratio)}" for mode, ratio in ratios.items()),
                flush=True,
            )
