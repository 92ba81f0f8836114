"""Checks that a network and its optimizer can be batched, at construction: minibatches of two replicas, toy steps.

A failed check raises an error with the reason; no run falls back silently to sequential learners.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import Batch, one_line
from asgd_lab.tasks.bound_module import BoundModule
from asgd_lab.tasks.global_generators import generators_of, preserving_generators
from asgd_lab.tasks.network import Network, NetworkLearner
from asgd_lab.tasks.objective import IGNORED
from asgd_lab.tasks.optimizer_state import groups_of
from asgd_lab.tasks.optimizers import MakeOptimizer
from asgd_lab.tasks.python_state import optimizer_attributes, python_state
from asgd_lab.tasks.replica_stack import Outputs, Stack

_NEAR = 1e-2  # relative difference that rounding may cause
_NEAR_AFTER_STEPS = (
    1e-1  # for the change of parameters: Adam takes full steps even from gradients that are all rounding
)
_STEPS = (2, 1)  # of two calls

_KEEPS = "the model keeps something from one minibatch to the next that is no parameter"
_KEEPS += " and no buffer, or draws from Python's generator"


def _refused(message: str) -> ScenarioError:
    return ScenarioError.at("backend.numerics", f"cannot be batched: {message}; use sequential")


class _Minibatch(NamedTuple):
    """One replica's minibatch, computed alone."""

    loss: Tensor
    gradients: dict[str, Tensor]  # of the parameters that get one
    kept_bytes: int  # saved between the forward and the backward pass


def check_parts(parts: Mapping[str, bool]) -> None:
    """A `ScenarioError` for the first of these parts of a task that is there, and that no batch has."""
    for what, is_used in parts.items():
        if is_used:
            raise _refused(f"the task has {what}")


def check_labels(labels: Tensor) -> None:
    """A `ScenarioError` if some of the labels (B, R) name no class, or more than one."""
    if labels.dim() != 2 or bool((labels == IGNORED).any()):
        raise _refused("each sample's label must be one class")


def examine(network: Network, inputs: Tensor, labels: Tensor, outputs: Outputs | None = None) -> tuple[Stack, int]:
    """The stack of a network, and the bytes that each replica saves between the forward and the backward pass.

    `outputs` are those of `Stack`. The network is tried on inputs (B, 2, ...) and labels (B, 2, ...). A `ScenarioError`
    says that a minibatch has other effects than its gradient, that vmap refuses the model, or that replicas compute
    other values together than alone.
    """
    pair = [network.fresh(inputs.device).model for _ in range(2)]
    with torch.no_grad():
        for parameter in pair[1].parameters():
            parameter.mul_(1.1)
    alone = [_minibatch(each, inputs[:, place].clone(), labels[:, place]) for place, each in enumerate(pair)]
    model = network.fresh(inputs.device).model
    stack = Stack(model, list(alone[0].gradients), outputs)
    parameters = [dict(each.named_parameters()) for each in pair]
    before = python_state(model)
    rows = torch.stack([torch.cat([each[name].detach().flatten() for name in stack.weights]) for each in parameters])
    for places in ([0, 1], [1, 0]):  # the second call runs the graph that the first has recorded
        index = torch.tensor(places).to(inputs.device)
        others = [torch.stack([parameters[place][name].detach() for place in places]) for name in stack.others]
        try:
            with warnings.catch_warnings():
                # vmap loops over the replicas for an operation without a batching rule.
                warnings.filterwarnings("error", message="There is a performance drop")
                gradients, losses, _ = stack.step(
                    rows.index_select(0, index), others, inputs.index_select(1, index), labels.index_select(1, index)
                )
        except Exception as error:
            raise _refused(f"torch.func.vmap refuses the model ({one_line(error)})") from error
        for place, gradient, loss in zip(places, gradients, losses, strict=True):
            expected = torch.cat([tensor.flatten() for tensor in alone[place].gradients.values()])
            if _far(gradient, expected) or _far(loss, alone[place].loss):
                raise _refused("the model's replicas compute something else together than alone")
    if python_state(model) != before:
        raise _refused(_KEEPS)
    return stack, alone[0].kept_bytes


def check_steps(
    network: Network, learner: Callable[[BoundModule, int, Tensor], NetworkLearner], batch: Batch, device: torch.device
) -> None:
    """A `ScenarioError` if vectors differ after real steps taken alone and batched.

    `learner` makes a learner of a module, a worker and a vector.
    """
    with preserving_generators():
        bound = network.fresh(device)
        starts = [network.initial().to(device).mul_(1 + 0.1 * worker) for worker in range(2)]
        alone, together = (
            [learner(bound, worker, start.clone()) for worker, start in enumerate(starts)] for _ in range(2)
        )
        for each in alone:
            for step in range(sum(_STEPS)):
                _, moved = each.watched(step)
                if moved:
                    raise _refused("the model changes its parameters in its forward or backward pass")
                each.step(step)
        first = 0
        for steps in _STEPS:
            batch.advance([(each, first, steps) for each in together])
            first += steps
    for start, one, other in zip(starts, alone, together, strict=True):
        if _far(other.params - start, one.params - start, _NEAR_AFTER_STEPS):
            raise _refused("after some minibatches the parameters are others together than alone")


def _far(found: Tensor, expected: Tensor, near: float = _NEAR) -> bool:
    return bool((found - expected).norm() > near * expected.norm())


def _loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """The mean over labels (B, ...) of outputs (B, ..., classes)."""
    return cross_entropy(outputs.flatten(0, -2), labels.flatten())


def _minibatch(model: nn.Module, inputs: Tensor, labels: Tensor) -> _Minibatch:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    hidden = python_state(model)
    kept_bytes = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept_bytes
        kept_bytes += tensor.nbytes
        return tensor

    generators = generators_of(inputs.device)
    gpus = [inputs.device] if inputs.is_cuda else []
    with torch.random.fork_rng(devices=gpus), saved_tensors_hooks(keep, lambda tensor: tensor):
        before = [each.get_state() for each in generators]
        loss = _loss(model(inputs.clone()), labels)
        after = [each.get_state() for each in generators]
    if not all(map(torch.equal, before, after)):
        raise _refused("the model draws random numbers while it trains, as dropout does")
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            raise _refused(f"training changes the model's buffer {name}, as it does BatchNorm's running statistics")
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    with torch.no_grad():
        again = _loss(model(inputs), labels)
    if python_state(model) != hidden or not torch.equal(again, loss.detach()):
        raise _refused(_KEEPS)
    reached = {name: found for name, found in zip(trained, gradients, strict=True) if found is not None}
    return _Minibatch(loss.detach(), reached, kept_bytes)


def memories(make: MakeOptimizer) -> frozenset[str]:
    """The names of the optimizer's state tensors that have the shape of their weight; its other state is numbers.

    A `ScenarioError` if a step over several weights differs from a step over one row of all their elements.
    """
    weights = [torch.linspace(-1, 1, 6).view(2, 3), torch.linspace(1, 2, 4)]
    row = torch.cat([weight.flatten() for weight in weights])
    try:
        each, whole = make(weights), make([row])
        groups, attributes = groups_of(whole), optimizer_attributes(whole)
        for step in range(3):
            row.grad = torch.sin(torch.arange(10.0) + step)
            weights[0].grad, weights[1].grad = row.grad[:6].view(2, 3), row.grad[6:]
            each.step()
            whole.step()
        alike = torch.allclose(torch.cat([weight.flatten() for weight in weights]), row)
    except Exception as error:  # for example from Muon, which takes matrices only
        raise _refused("the local optimizer does not step element by element") from error
    if not alike:
        raise _refused("the local optimizer does not step element by element")
    changed = groups_of(whole) != groups or optimizer_attributes(whole) != attributes
    if changed or set(whole.state) - {row} or set(whole.state_dict()) - {"state", "param_groups"}:
        raise _refused("the local optimizer remembers more than a state of each parameter")
    return frozenset(
        name for name, value in whole.state[row].items() if isinstance(value, Tensor) and value.shape == row.shape
    )
