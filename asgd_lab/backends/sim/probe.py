"""A probe whether batching pays for a task: measured on scratch replicas before the run, without effect on it."""

from __future__ import annotations

import math
import time

import torch

from asgd_lab.tasks.base import CPU, Batch, Learner, Task

_MARGIN = 1.1  # batching must win by this factor: it gives up the bits of the sequential run
_CLEAR = 1.15  # a ratio this factor away from the margin decides at once
_REPEATS = (2, 7)  # at least, and at most
_ENOUGH_S = 1.0  # after the least repeats, none begins after this time
_TRIAL_S = 0.02  # the time of a trial: cheap minibatches are taken several times
_STEPS = 5  # minibatches of a round, at most
_ALONE = 2  # replicas for the sequential measurement


def faster_batched(
    task: Task, batch: Batch, workers: int, steps: int, device: torch.device = CPU
) -> tuple[bool, float]:
    """Whether rounds of so many minibatches of so many workers are clearly faster batched, and the ratio of times,
    sequential over batched: of the shortest, since other programs only lengthen them.

    It costs some ten minibatches of each replica in a pass of the batch, and keeps nothing but the batch's records.
    """
    together = [task.learner(worker, task.initial().to(device)) for worker in range(min(workers, batch.height))]
    alone = together[:_ALONE]
    taken = 0

    def one_by_one(steps: int) -> float:
        """Seconds of a minibatch."""
        began = time.perf_counter()
        for learner in alone:
            for step in range(taken, taken + steps):
                learner.minibatch(step)
        return (time.perf_counter() - began) / steps / len(alone)

    def in_one_pass(steps: int) -> float:
        rounds: list[tuple[Learner, int, int]] = [(learner, taken, steps) for learner in together]
        began = time.perf_counter()
        batch.advance(rounds)
        return (time.perf_counter() - began) / steps / len(together)

    singles: list[float] = []
    passes: list[float] = []
    ratio = math.nan
    # A learner's minibatch seeds the default generators.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        one_by_one(1), in_one_pass(1)  # loads kernels, and records
        steps = max(1, min(steps, _STEPS, int(_TRIAL_S / one_by_one(1))))
        began = time.perf_counter()
        least, most = _REPEATS
        while len(singles) < most:
            taken += steps
            singles.append(one_by_one(steps))
            passes.append(in_one_pass(steps))
            ratio = min(singles) / min(passes)
            is_clear = not 1 / _CLEAR < ratio / _MARGIN < _CLEAR
            if len(singles) >= least and (is_clear or time.perf_counter() > began + _ENOUGH_S):
                break
    return ratio > _MARGIN, ratio
