"""Checks before a run: its first two minibatches, with the real optimizer and clipping.

Two learners take the same minibatches, each in a module of its own. If they differ by more than rounding, the model
depends on something that no seed controls. Allowed but doubtful choices give warnings, `key: sentence`.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.bound_module import BoundModule
from asgd_lab.tasks.determinism import repeatable, same, tolerance
from asgd_lab.tasks.global_generators import preserving_generators
from asgd_lab.tasks.network import Network, NetworkLearner
from asgd_lab.tasks.python_state import shared_state

STEPS = 2  # an optimizer reads its own state at the second


def try_steps(
    network: Network, name: str, learner: Callable[[BoundModule, Tensor], NetworkLearner], device: torch.device
) -> tuple[NetworkLearner, list[str]]:
    """A learner that has taken the first minibatches, and warnings; a `ScenarioError` if a minibatch fails, or if the
    minibatches cannot be repeated.

    `learner` makes a learner of a module and a vector.
    """
    with preserving_generators(), repeatable(device):
        tried = [learner(network.fresh(device), network.initial().to(device)) for _ in range(2)]
        shared = shared_state(tried[0].module)
        losses = [[_minibatch(each, name, step) for step in range(STEPS)] for each in tried]
    alike, rounding = all(near(one, other, device) for one, other in zip(*losses, strict=True)), tolerance(device)
    one, other = ({"": each.params, **each.buffers()} for each in tried)
    if not alike or one.keys() != other.keys() or not all(same(one[each], other[each], rounding) for each in one):
        message = f"{name} computes something else each time that it is built and trained from one seed; what it draws"
        raise ScenarioError.at("task.model", f"{message} must come from torch's, numpy's or Python's global generator")
    doubts = list(_not_finite(name, losses[0][0], one))
    if shared_state(tried[0].module) == shared:
        return tried[0], doubts
    message = f"task.model: {name} changes a global or its class while it trains, which all replicas of a process share"
    doubts.append(f"{message} and no checkpoint has; keep it in a buffer: register_buffer()")
    return tried[0], doubts


def _not_finite(name: str, loss: float, after: Mapping[str, Tensor]) -> Iterator[str]:
    """A warning if the first loss is not finite, or numbers of the learner after its minibatches are not."""
    if not math.isfinite(loss):
        yield f"task.model: the loss of {name} is {loss:g} in its first minibatch, before any step"
    elif not after[""].isfinite().all():
        yield f"task.model: {name} has parameters that are not finite after {STEPS} minibatches; use a lower rate"


def _minibatch(learner: NetworkLearner, name: str, step: int) -> float:
    which = "first" if step == 0 else "second"
    try:
        if learner.takes_whole_steps:
            return learner.minibatch(step)[0]
        loss, moved = learner.watched(step)
    except RunFailed as error:
        raise ScenarioError.at("task.model", f"{name} fails in its {which} minibatch: {error}") from error
    except Exception as error:
        raise ScenarioError.at("task.model", f"{name} fails in its {which} minibatch: {one_line(error)}") from error
    if moved and learner.sums:
        message = f"gradient sends only gradients, and {name} changes parameters in its forward or backward pass too"
        raise ScenarioError.at("algorithm.push", f"{message}; use push: delta")
    try:
        learner.step(step)
    except ScenarioError:
        raise
    except Exception as error:
        files = {Path(frame.filename).stem for frame in traceback.extract_tb(error.__traceback__)}
        where = next((key for file, key in _BLAMED.items() if file in files), "task.optimizer")
        what = "the gradients of {} cannot be clipped" if where == "task.clip" else "the {} step with {} fails"
        said = what.format(*([name] if where == "task.clip" else [which, name]))
        raise ScenarioError.at(where, f"{said}: {one_line(error)}") from error
    return loss.item()


_BLAMED = {"clipping_and_schedules": "task.clip", "bound_module": "task.model"}


def near(one: float, other: float, device: torch.device) -> bool:
    """Whether two numbers are equal, to rounding on that device; nan equals nan."""
    return one == other or (math.isnan(one) and math.isnan(other)) or abs(one - other) <= tolerance(device) * abs(other)
