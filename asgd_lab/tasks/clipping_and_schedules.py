"""Changes to gradients and learning rates before a local step: clipping, and a schedule that follows a clock.

The clock is the worker's own minibatches, or the version of the parameters that it fetched last. A schedule is a pure
function of its clock, so resume, replay and restart need no saved state of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from asgd_lab.errors import RunFailed, ScenarioError, shortened
from asgd_lab.task_keys.optimizers import Clip, Schedule
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.code_imports import imported

Adjust = Callable[[Sequence[torch.optim.Optimizer], Sequence[Tensor], int, int], None]
"""(optimizers, weights, the worker's minibatches so far, the version it works on), called before each step."""
AdjustRows = Callable[[torch.optim.Optimizer, Sequence[Tensor], Tensor, Sequence[tuple[int, int]]], None]
"""The same for replicas: (optimizer, rows (P,), their gradients (R, P), each row's minibatches and version)."""


def rate_factor(schedule: Schedule, time: int) -> float:
    """The factor of the learning rate at `time` of the schedule's clock."""
    warm = min(1.0, (time + 1) / schedule.warmup) if schedule.warmup else 1.0
    if schedule.every is not None:
        return float(warm * schedule.factor ** (time // schedule.every))
    if schedule.name == "constant":
        return warm
    if ":" in schedule.name:
        return warm * _factor(schedule.name, time)
    assert schedule.length is not None  # as for every other name
    share = min(1.0, max(0, time - schedule.warmup) / (schedule.length - schedule.warmup))
    down = 1.0 - share if schedule.name == "linear" else 0.5 * (1.0 + math.cos(math.pi * share))
    return float(warm * (schedule.final + (1.0 - schedule.final) * down))


def _factor(name: str, time: int) -> float:
    """The value of the user's function; a RunFailed if it is no finite number, or negative."""
    found = _function(name)(time)
    if not isinstance(found, Real) or not 0 <= float(found) < math.inf:
        shown = shortened(repr(found), 80)
        raise RunFailed(f"the schedule {name} returns {shown} at {time}; it must return a finite factor, 0 or more")
    return float(found)


@functools.cache
def _function(name: str) -> Callable[[int], Any]:
    return imported("task.schedule.name", name, "it takes the time of the clock and returns a factor of the rate")


def check_schedule(schedule: Schedule | None) -> None:
    """A `ScenarioError` if a schedule is a user's function that cannot be imported, or that fails at 0."""
    if schedule is not None and ":" in schedule.name:
        _function(schedule.name)
        try:
            _factor(schedule.name, 0)
        except Exception as error:
            said = str(error) if isinstance(error, RunFailed) else f"{schedule.name} raised {one_line(error)}"
            raise ScenarioError.at("task.schedule.name", said) from error


def adjuster(schedule: Schedule | None, clip: Clip | None) -> Adjust | None:
    """The function that clips and sets the rate as the scenario says; None if it says nothing."""
    check_schedule(schedule)
    if schedule is None and clip is None:
        return None

    def adjust(optimizers: Sequence[torch.optim.Optimizer], weights: Sequence[Tensor], step: int, version: int) -> None:
        if clip is not None:
            if clip.norm is not None:
                clip_grad_norm_(weights, clip.norm)
            elif clip.value is not None:
                clip_grad_value_(weights, clip.value)
        if schedule is not None:
            by = _rate_factor_now(schedule, step, version)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * by

    return adjust


def row_adjuster(schedule: Schedule | None, clip: Clip | None) -> AdjustRows | None:
    """As `adjuster`, for replicas that share one optimizer, each as one row."""
    if schedule is None and clip is None:
        return None

    def adjust(
        optimizer: torch.optim.Optimizer, rows: Sequence[Tensor], gradients: Tensor, clocks: Sequence[tuple[int, int]]
    ) -> None:
        if clip is not None:
            if clip.norm is not None:
                norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
                gradients.mul_((clip.norm / (norms + 1e-6)).clamp_(max=1.0))  # as in torch's clip_grad_norm_
            elif clip.value is not None:
                gradients.clamp_(-clip.value, clip.value)
        if schedule is not None:
            together: dict[float, list[Tensor]] = {}
            for row, clock in zip(rows, clocks, strict=True):
                together.setdefault(_rate_factor_now(schedule, *clock), []).append(row)
            first = optimizer.param_groups[0]
            rate = first.setdefault("initial_lr", first["lr"])
            optimizer.param_groups[:] = [first | {"params": same, "lr": rate * by} for by, same in together.items()]

    return adjust


def _rate_factor_now(schedule: Schedule, step: int, version: int) -> float:
    return rate_factor(schedule, step if schedule.clock == "steps" else version)
