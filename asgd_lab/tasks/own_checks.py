"""Checks before a run of a user's class that no other task needs: its methods, optimizers, minibatches and splits.

Functions that yield give warnings, `key: sentence`, on choices that are allowed and doubtful.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.optimizer_state import Stepper
from asgd_lab.tasks.optimizers import REFUSED
from asgd_lab.tasks.own_batches import minibatch
from asgd_lab.tasks.recipe import Batches
from asgd_lab.tasks.trees import cloned, difference, on

METHODS = "it is a class with the methods model, batch or stream, and loss or step"
_ALL = ("model", "batch", "stream", "loss", "step", "optimizer", "evaluations")
_YIELDING = ("stream", "evaluations")  # they may be generator functions
_LONGEST = 100  # characters of a name
_FIRST = 2  # minibatches of a split


def methods_of(name: str, own: Any) -> set[str]:
    """The methods that an instance of the class has, None being none; a `ScenarioError` if they are not complete."""
    has = set()
    for each in _ALL:
        try:
            found = getattr(own, each, None)
        except Exception as error:
            raise ScenarioError.at("task.task", f"{name}.{each} raised {one_line(error)}") from error
        if found is None:
            continue
        called = getattr(found, "__func__", found)
        wrong = {
            f"is a {type(found).__name__}": not callable(found) or isinstance(found, nn.Module),
            "is async": inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called),
            "yields, and must return": each not in _YIELDING and inspect.isgeneratorfunction(called),
        }
        for what, is_so in wrong.items():
            if is_so:
                raise ScenarioError.at("task.task", f"{name}.{each} {what}; it must be a plain method")
        has.add(each)
    missing = {
        "has no method model": "model" not in has,
        "has no method batch and no stream": not has & {"batch", "stream"},
        "has batch and stream; give one of them": has >= {"batch", "stream"},
        "has no method loss and no step": not has & {"loss", "step"},
        "has evaluations, which need the method loss": "evaluations" in has and "loss" not in has,
    }
    for what, is_so in missing.items():
        if is_so:
            raise ScenarioError.at("task.task", f"{name} {what}; {METHODS}")
    return has


def check_keys(name: str, has: set[str], given: Mapping[str, bool]) -> None:
    """A `ScenarioError` if keys of the scenario that are `given` contradict the methods that the class has."""
    contradictions = {
        "optimizer": ("optimizer", "makes its own"),
        "clip": ("step", "has a step of its own, which may clip"),
        "precision": ("step", "has a step of its own, which may cast"),
    }
    for where, (method, why) in contradictions.items():
        if given[where] and method in has:
            raise ScenarioError.at(f"task.{where}", f"cannot stand beside {name}, which {why}; remove it")


def steppers_of(name: str, found: Any, model: nn.Module, *, steps_itself: bool) -> Sequence[Stepper]:
    """The optimizers and schedulers that the class returns; a `ScenarioError` if they do not train this model."""
    steppers = list(found) if isinstance(found, list | tuple) else [found]
    wrong = next((each for each in steppers if not isinstance(each, Stepper)), None)
    if wrong is not None or not steppers or not isinstance(steppers[0], torch.optim.Optimizer):
        what = "no optimizer" if wrong is None else type(wrong).__name__
        message = f"{name}.optimizer returns {what}; it must be a torch.optim.Optimizer, or a list of"
        raise ScenarioError.at("task.task", f"{message} optimizers with their schedulers behind them")
    inside, there = {id(each) for each in model.parameters()}, {id(each) for each in steppers}
    trouble = f"the same {type(steppers[0]).__name__} twice" if len(there) < len(steppers) else ""
    for each in steppers:
        kind = type(each).__name__
        if isinstance(each, LRScheduler):
            if id(getattr(each, "optimizer", steppers[0])) not in there:
                trouble = f"{kind}, a scheduler of an optimizer that it does not return"
            continue
        if kind in REFUSED and not steps_itself:
            trouble = f"{kind}, which {REFUSED[kind]}"
        elif any(id(weight) not in inside for group in each.param_groups for weight in group["params"]):
            message = f"{name}.optimizer takes parameters that are not of the model that it is given"
            raise ScenarioError.at("task.task", message)
    if trouble:
        raise ScenarioError.at("task.task", f"{name}.optimizer returns {trouble}")
    return steppers


def check_split(name: str, found: Any) -> tuple[str, Iterable[Any]]:
    """A pair of a split's name and its minibatches; a RunFailed if it is none."""
    what = f"{name}.evaluations yields"
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], str):
        raise RunFailed(
            f"{what} {type(found).__name__}; it must be a tuple of a split's name and an iterable of minibatches"
        )
    split: str = found[0]
    if not split or not split.isprintable() or len(split) > _LONGEST:
        raise RunFailed(f"{what} a split named {split[:_LONGEST]!r}; a name is printable text, 1 to {_LONGEST} letters")
    return split, found[1]


def not_finite(name: str, evaluated: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A warning for each metric that is not finite at the initial parameters."""
    for split, means in evaluated.items():
        for metric, value in means.items():
            if not math.isfinite(value):
                yield f"task.task: {name} evaluates {split} {metric} to {value:g} before it is trained"


def check_columns(name: str, evaluated: Iterable[tuple[str, str]]) -> None:
    """A `ScenarioError` if two metrics of the splits would have one name in the summary."""
    seen: dict[str, str] = {}
    for split, metric in evaluated:
        here = f"{split} {metric}"
        there = seen.setdefault(f"{split}_{metric}", here)
        if here != there:
            message = f"{name} evaluates {there} and {here}, which are both {split}_{metric} in summary.json"
            raise ScenarioError.at("task.task", f"{message}; rename a split or a metric")


def check_unchanged(method: str, before: Sequence[Any], batches: Batches) -> None:
    """A `ScenarioError` if training has changed the first minibatches, which the class returns again."""
    for step, kept in enumerate(before):
        place = difference(kept, minibatch(method, batches, step))
        if place is not None:
            message = f"{method} gives another minibatch {step} after it was trained on: {place} was changed in place"
            raise ScenarioError.at("task.task", f"{message}; return a clone, or change one")


def same_for_two(method: str, batches: Callable[[int], Batches]) -> Iterator[str]:
    """A warning if workers 0 and 1 train on the same minibatches."""
    with preserving_generators():
        one, other = ([minibatch(method, each, step) for step in range(_FIRST)] for each in map(batches, range(2)))
    if difference(one, other) is None:
        yield f"task.task: {method} gives workers 0 and 1 the same minibatches; let them depend on the worker"


def left_out(name: str, model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[str]:
    """A warning if no optimizer has a parameter that is to be trained; it would be sent all the same."""
    inside = {id(weight) for made in optimizers for group in made.param_groups for weight in group["params"]}
    lost = [label for label, each in model.named_parameters() if each.requires_grad and id(each) not in inside]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        yield f"task.task: no optimizer of {name} has its parameter {lost[0]}{more}; requires_grad_(False) freezes it"


def first_of_splits(
    name: str, evaluations: Callable[[], Iterator[tuple[str, Iterable[Any]]]], device: torch.device
) -> dict[str, Sequence[Any]]:
    """The first minibatches of each split; a RunFailed if there are none, or others in a second call."""
    with preserving_generators():
        seed_all(0)
        found = _first(name, evaluations, device)
        seed_all(1)
        again = _first(name, evaluations, device)
    if found.keys() != again.keys():
        raise RunFailed(f"{name}.evaluations yields {_few(found)}, and {_few(again)} when it is called again")
    for split, first in found.items():
        place = difference(first, again[split])
        if place is not None:
            what = f"{name}.evaluations yields other minibatches of {split} when it is called again: {place} differs"
            raise RunFailed(f"{what}; it must make them anew from the same data in each call")
    return found


def _first(
    name: str, evaluations: Callable[[], Iterator[tuple[str, Iterable[Any]]]], device: torch.device
) -> dict[str, Sequence[Any]]:
    seen: dict[str, Sequence[Any]] = {}
    try:
        for split, batches in evaluations():
            first = [cloned(on(device, batch)) for batch in itertools.islice(batches, _FIRST)]
            if split in seen or not first:
                what = "twice" if split in seen else "without a minibatch"
                raise RunFailed(f"{name}.evaluations yields {split} {what}")
            seen[split] = first
    except Exception as error:
        if isinstance(error, RunFailed):
            raise
        raise RunFailed(f"{name}.evaluations raised {one_line(error)}") from error
    return seen


def _few(splits: Iterable[str]) -> str:
    return ", ".join(splits) or "nothing"
