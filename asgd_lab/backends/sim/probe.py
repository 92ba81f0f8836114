"""A probe whether batching pays for a task: measured on scratch replicas before the run, without effect on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from asgd_lab.tasks.base import CPU, Batch, Learner, Task

_MARGIN = 1.1  # batching must win by this factor: it gives up the bits of the sequential run
_REPEATS = 5
_ENOUGH_S = 2.0  # no repeat begins after this time
_WORKERS = 32  # replicas that stand for all
_ALONE = 4  # replicas for the sequential measurement
_STEPS = 5  # minibatches of a round, at most


def faster_batched(
    task: Task, batch: Batch, workers: int, steps: int, device: torch.device = CPU
) -> tuple[bool, float]:
    """Whether rounds of so many minibatches of so many workers are clearly faster batched, and the ratio of times,
    sequential over batched.

    It takes seconds of the host's time, more with large networks. Preparations of the batch at its first use remain.
    """
    workers, steps = min(workers, _WORKERS), min(steps, _STEPS)
    learners = [task.learner(worker, task.initial().to(device)) for worker in range(workers)]
    alone = learners[:_ALONE]
    taken = 0

    def one_by_one() -> None:
        for learner in alone:
            for step in range(taken, taken + steps):
                learner.minibatch(step)

    def together() -> None:
        rounds: list[tuple[Learner, int, int]] = [(learner, taken, steps) for learner in learners]
        batch.advance(rounds)

    ratios: list[float] = []
    # A learner's minibatch seeds the default generators.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        one_by_one()
        together()
        began = time.perf_counter()
        while not ratios or (len(ratios) < _REPEATS and time.perf_counter() < began + _ENOUGH_S):
            taken += steps
            ratios.append(_seconds(one_by_one) / len(alone) / (_seconds(together) / workers))
    ratio = statistics.median(ratios)
    return ratio > _MARGIN, ratio


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
