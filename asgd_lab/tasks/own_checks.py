"""Checks before a run of a user's class that no other task needs: whose minibatches, which parameters, which splits.

Functions that yield give warnings, `key: sentence`, on choices that are allowed and doubtful.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.recipe import Batches
from asgd_lab.tasks.trees import cloned, difference, on

_FIRST = 2  # minibatches of a split


def check_unchanged(method: str, before: Sequence[Any], batches: Batches) -> None:
    """A `ScenarioError` if training has changed the first minibatches, which the class returns again."""
    for step, kept in enumerate(before):
        place = difference(kept, batches(step))
        if place is not None:
            message = f"{method} gives another minibatch {step} after it was trained on: {place} was changed in place"
            raise ScenarioError.at("task.task", f"{message}; return a clone, or change one")


def same_for_two(method: str, batches: Callable[[int], Batches]) -> Iterator[str]:
    """A warning if workers 0 and 1 train on the same minibatches."""
    with preserving_generators():
        one, other = ([cloned(each(step)) for step in range(_FIRST)] for each in map(batches, range(2)))
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
