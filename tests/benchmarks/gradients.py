"""Gradients: simulation with the real gradients against a bare PyTorch loop of as many steps, on one thread."""

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

STEPS = 1600
REPEATS = 5
BATCH = 64


def scenario(model: str, workers: int) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "gradients",
            "task": {
                "name": "classification",
                "dataset": "digits",
                "model": model,
                "batch_size": BATCH,
                "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
            },
            "algorithm": {"name": "asgd", "n_sync": 10},
            "workers": workers,
            "budget": {"minibatches": STEPS},
            "backend": "sim",
            "hardware": {"compute": {"distribution": "lognormal", "step_s": 0.01}},
            "record": "all",
        }
    )


def bare(model_name: str, data: dict[str, torch.Tensor]) -> float:
    """Seconds of the loop everybody writes: shuffled minibatches, loss, backward, step."""
    images, labels = data["train_images"], data["train_labels"]
    model: nn.Module = models.build(model_name, {}, tuple(images.shape[1:]), 10, BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    began = time.perf_counter()
    per_epoch = len(labels) // BATCH
    for step in range(STEPS):
        if step % per_epoch == 0:
            order = torch.randperm(len(labels))
        index = order[step % per_epoch * BATCH : (step % per_epoch + 1) * BATCH]
        outputs = model(images[index])
        loss = cross_entropy(outputs, labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
    return time.perf_counter() - began


def main() -> None:
    for model in ("mlp", "lenet"):
        data = tasks.load(scenario(model, 1).task)
        bare(model, data)
        for workers in (1, 8):
            ratios = []
            for _ in range(REPEATS):
                loop = bare(model, data)
                with tempfile.TemporaryDirectory() as folder:
                    began = time.perf_counter()
                    execute(scenario(model, workers), Path(folder) / "run")
                    ratios.append((time.perf_counter() - began) / loop)
            print(
                f"{model} on digits at batch {BATCH}, {workers} simulated workers, {STEPS} steps, set-up, "
                f"recording and final evaluation included: {spread(ratios, 1.0, 'times the bare loop')}",
                flush=True,
            )
