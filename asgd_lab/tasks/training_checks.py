"""Checks before a run: its first two minibatches, with the real optimizer and clipping, and evaluations.

Two learners take the same minibatches, each in a module of its own. If they differ by more than rounding, the model
depends on something that no seed controls. Allowed but doubtful choices give warnings, `key: sentence`.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.bound_module import BoundModule, Buffers
from asgd_lab.tasks.determinism import repeatable, same, tolerance
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.network import Network, NetworkLearner
from asgd_lab.tasks.objective import Sums
from asgd_lab.tasks.python_state import shared_state

STEPS = 2  # an optimizer reads its own state at the second

Minibatch = tuple[Tensor, Tensor]
"""Inputs and labels."""


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
    alike, near = all(_near(one, other, device) for one, other in zip(*losses, strict=True)), tolerance(device)
    one, other = ({"": each.params, **each.buffers()} for each in tried)
    if not alike or one.keys() != other.keys() or not all(same(one[each], other[each], near) for each in one):
        message = f"{name} computes something else each time that it is built and trained from one seed; what it draws"
        raise ScenarioError.at("task.model", f"{message} must come from torch's, numpy's or Python's global generator")
    if shared_state(tried[0].module) == shared:
        return tried[0], []
    message = f"task.model: {name} changes a global or its class while it trains, which all replicas of a process share"
    return tried[0], [f"{message} and no checkpoint has; keep it in a buffer: register_buffer()"]


def _minibatch(learner: NetworkLearner, name: str, step: int) -> float:
    which = "first" if step == 0 else "second"
    try:
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


def check_evaluation(
    network: Network, name: str, learner: NetworkLearner, minibatches: Sequence[Minibatch], shorter: int
) -> bool:
    """Whether the model can evaluate only whole minibatches, for example because a buffer has their size.

    It is tried with its initial parameters and with those after the learner's minibatches, on all `minibatches`, and on
    the first one cut to `shorter` samples. A `ScenarioError` if it cannot evaluate a whole minibatch, or if its outputs
    for a filled one could not be cut.
    """
    inputs, labels = minibatches[0]
    start, trained = (network.initial().to(inputs.device), network.buffers), (learner.params, learner.buffers())
    whole = False
    with preserving_generators(), torch.no_grad():
        bound = network.fresh(inputs.device)
        for params, buffers in (start, trained):
            for which, minibatch in enumerate(minibatches):
                try:
                    outputs, _ = _evaluated(network, bound, params, buffers, *minibatch)
                except Exception as error:
                    where = " where inputs or labels are least or greatest" if which else ""
                    raise ScenarioError.at(
                        "task.model", f"{name} cannot be evaluated{where}: {one_line(error)}"
                    ) from error
                if which:
                    continue
                try:
                    _evaluated(network, bound, params, buffers, inputs[:shorter], labels[:shorter])
                except Exception as error:
                    if not isinstance(outputs, Tensor) or not outputs.dim() or len(outputs) != len(labels):
                        message = f"{name} cannot be evaluated on {shorter} samples, as the last minibatch may have: "
                        raise ScenarioError.at("task.model", message + one_line(error)) from error
                    whole = True
    return whole


def doubts(
    network: Network, name: str, learner: NetworkLearner, minibatch: Minibatch, loss: str | None
) -> Iterator[str]:
    """Warnings if evaluations differ from those of a plain loop. The learner must not be used afterwards."""
    inputs, labels = minibatch
    with preserving_generators(), torch.no_grad():
        params, buffers = learner.params.clone(), {each: value.clone() for each, value in learner.buffers().items()}
        bound = network.fresh(inputs.device)
        _, found = _evaluated(network, bound, params, buffers, inputs, labels)
        if loss is not None:
            yield from _parts(network, bound, params, buffers, minibatch, loss, found)
        model = learner.module
        model.eval()
        seed_all(key(0, "evaluate"))
        own = network.recipe.objective.sums(model(inputs.clone()), labels.clone())
    if not _near(found.loss, own.loss, inputs.device) or found.wrong != own.wrong:
        yield (
            f"task.model: {name} keeps something that is neither a parameter nor a buffer and that changes what it "
            "evaluates; evaluations take it as it is at the start; register_buffer()"
        )


def _parts(
    network: Network, bound: BoundModule, params: Tensor, buffers: Buffers, minibatch: Minibatch, loss: str, whole: Sums
) -> Iterator[str]:
    """A warning if the loss is not a mean over samples."""
    inputs, labels = minibatch
    cut = len(labels) // 3
    if not cut:
        return
    try:
        parts = [
            _evaluated(network, bound, params, buffers, inputs[piece], labels[piece])[1]
            for piece in (slice(cut), slice(cut, None))
        ]
    except Exception:  # the model evaluates only whole minibatches, so parts of one are never used
        return
    weight = sum(each.weight for each in parts)
    if not weight or not whole.weight:
        return
    together, apart = whole.loss / whole.weight, sum(each.loss for each in parts) / weight
    if abs(together - apart) > 1e-4 * abs(together):
        yield (
            f"task.loss: {loss} is no mean over samples: {together:.4g} of a minibatch, {apart:.4g} of its parts; an "
            "evaluation tells the mean over minibatches of batch_size; a tuple (sum, weight) would be exact"
        )


def _evaluated(
    network: Network, bound: BoundModule, params: Tensor, buffers: Buffers, inputs: Tensor, labels: Tensor
) -> tuple[object, Sums]:
    bound.bind(bound.place(params.clone(), {**network.buffers, **buffers}))
    bound.model.eval()
    seed_all(key(0, "evaluate"))
    outputs = bound.model(inputs.clone())
    return outputs, network.recipe.objective.sums(outputs, labels.clone())


def _near(one: float, other: float, device: torch.device) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other)) or abs(one - other) <= tolerance(device) * abs(other)
