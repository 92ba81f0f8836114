"""Batched: rounds of many replicas in one call against a bare PyTorch loop and sequential learners, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from asgd_lab import tasks
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import models
from asgd_lab.tasks.base import Learner
from asgd_lab.tasks.samples import pick
from tests.benchmarks.report import Row

N_SYNC = 10
REPEATS = 9
CASES = (("tests.benchmarks.batched:small", 16), ("lenet", 64), ("mlp", 32))
Round = Callable[[], object]


def small(num_classes: int) -> nn.Module:
    """Two convolutions and a linear layer over 8 by 8 pixels: 1,898 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, num_classes)),
    )


def scenario(model: str, batch: int) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "batched",
            "task": {
                "name": "classification",
                "dataset": "digits",
                "model": model,
                "batch_size": batch,
                "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
            },
            "algorithm": {"name": "asgd", "n_sync": N_SYNC},
            "workers": 1,
            "budget": {"minibatches": 1},
            "backend": "sim",
            "hardware": {"compute": {"distribution": "lognormal", "step_s": 0.01}},
        }
    )


def bare(model_name: str, batch: int, replicas: int, data: dict[str, torch.Tensor]) -> Round:
    """The loop everybody writes, a replica after another."""
    images, labels = pick(data, "train", torch.arange(len(data["train_labels"]))), data["train_labels"]
    replica = [models.build(model_name, {}, tuple(images.shape[1:]), 10) for _ in range(replicas)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in replica]
    orders = [torch.randperm(len(labels)).split(batch)[:-1] for _ in range(replicas)]
    taken = 0

    def take() -> None:
        nonlocal taken
        for model, optimizer, order in zip(replica, optimizers, orders, strict=True):
            for step in range(taken, taken + N_SYNC):
                index = order[step % len(order)]
                loss = cross_entropy(model(images[index]), labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
        taken += N_SYNC

    return take


def learners(task: tasks.Task, replicas: int) -> list[Learner]:
    return [task.learner(worker, task.initial()) for worker in range(replicas)]


def sequential(task: tasks.Task, replicas: int) -> Round:
    own, taken = learners(task, replicas), 0

    def take() -> None:
        nonlocal taken
        for learner in own:
            for step in range(taken, taken + N_SYNC):
                learner.minibatch(step)
        taken += N_SYNC

    return take


def batched(task: tasks.Task, replicas: int) -> Round:
    own, batch, taken = learners(task, replicas), task.batch(), 0

    def take() -> None:
        nonlocal taken
        batch.advance([(learner, taken, N_SYNC) for learner in own])
        taken += N_SYNC

    return take


def seconds(take: Round) -> float:
    began = time.perf_counter()
    take()
    return time.perf_counter() - began


def measure(tiny: bool) -> Iterator[Row]:
    """How many times as fast as the bare loop."""
    cases, counts, repeats = (CASES[:1], (2,), 1) if tiny else (CASES, (8, 32), REPEATS)
    faster = "times as fast as the bare loop"
    for model, batch in cases:
        config = scenario(model, batch).task
        data = tasks.load(config)
        task = tasks.build(config, 0, data)
        for replicas in counts:
            rounds = [bare(model, batch, replicas, data), sequential(task, replicas), batched(task, replicas)]
            for take in rounds:
                take()
            times = [[seconds(take) for take in rounds] for _ in range(repeats)]
            what = f"{model.rpartition(':')[2]} at batch {batch}, {replicas} replicas, rounds of {N_SYNC}"
            steps = [1e6 * loop / replicas / N_SYNC for loop, _, _ in times]
            yield Row(f"a step of the bare loop, {what}", steps, "µs", told=False)
            yield Row(f"one after another, {what}", [loop / one for loop, one, _ in times], faster, told=False)
            yield Row(f"in one batched call, {what}", [loop / many for loop, _, many in times], faster)
