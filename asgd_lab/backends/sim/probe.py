"""Whether batching pays for a task: measured on scratch replicas, before the run, which it leaves as it was."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from asgd_lab.tasks.base import CPU, Batch, Learner, Task

_MARGIN = 1.1  # batching must win by so much: it costs the bits of the sequential run
_REPEATS = 5
_ENOUGH_S = 2.0  # after which no further repeat begins
_WORKERS = 32  # that stand for all
_ALONE = 4  # of them, where each computes for itself
_STEPS = 5  # likewise of a round


def faster_batched(
    task: Task, batch: Batch, workers: int, steps: int, device: torch.device = CPU
) -> tuple[bool, float]:
    """Whether rounds of so many minibatches, by so many workers at once, take clearly less time batched; and the ratio,
    time one by one over time batched.

    Takes seconds of the host's time, more with large networks. What the batch prepares on first use stays prepared.
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
