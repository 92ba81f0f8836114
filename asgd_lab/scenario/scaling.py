"""A small learning problem in place of a large one: one computed minibatch stands for many of the studied system.

The scenario has the studied system's numbers; they are divided only for the execution, by one key in one place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from asgd_lab.configuration import Part

S = TypeVar("S", bound=Part)  # the scenario, whose file imports this one

_COUNTS = ("algorithm.n_sync", "algorithm.n_fetch", "algorithm.n_push", "budget.minibatches",
           "warm_start.minibatches", "evaluate.every_minibatches", "evaluate.every_steps")  # fmt: skip
_OF_SCHEDULE = ("task.schedule.every", "task.schedule.length", "task.schedule.warmup")


def scaled(scenario: S) -> S:
    """The executed scenario: `scale` times fewer minibatches, each `scale` times longer.

    A minibatch's time is the sum of `scale` independent times of the studied system, so its coefficient of variation is
    smaller by the square root of `scale`; the family of the distribution stays.
    """
    task: Any = dict(scenario)["task"]
    scale: int = getattr(task, "scale", 1)
    if scale == 1:
        return scenario
    stated = scenario.model_dump()
    for key, count in _counts(task, stated):
        *parts, last = key.split(".")
        _at(stated, parts)[last] = count // scale
    compute = stated["hardware"]["compute"]
    compute["step_s"] *= scale
    if "cv" in compute:
        compute["cv"] /= math.sqrt(scale)
    stated["task"]["scale"] = 1
    return type(scenario).model_validate(stated)


def contradictions(scenario: Any) -> Iterator[tuple[str, str]]:
    """Keys that contradict a task that stands for a larger one."""
    scale = getattr(scenario.task, "scale", 1)
    if scale == 1:
        return
    distribution = scenario.hardware.compute.distribution
    if distribution in ("exponential", "empirical"):
        message = f"must be constant, lognormal or gamma beside task.scale; got {distribution!r}"
        yield "hardware.compute.distribution", message
    for key, count in _counts(scenario.task, scenario.model_dump()):
        if count % scale:
            yield key, f"must be a multiple of task.scale, {scale}; got {count}"


def _counts(task: Any, stated: dict[str, Any]) -> Iterator[tuple[str, int]]:
    schedule = getattr(task, "schedule", None)
    keys = (*_COUNTS, *(_OF_SCHEDULE if schedule is not None and schedule.clock == "steps" else ()))
    for key in keys:
        *parts, last = key.split(".")
        found = _at(stated, parts)
        if isinstance(found, Mapping) and found.get(last) is not None:
            yield key, found[last]


def _at(stated: Any, parts: list[str]) -> Any:
    for part in parts:
        stated = stated.get(part) if isinstance(stated, dict) else None
    return stated
