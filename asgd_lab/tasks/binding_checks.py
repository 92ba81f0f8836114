"""Checks before training that a module bound to a vector computes as a plain one, with all its weights in the vector.

A plain module keeps its parameters where its constructor put them, as in a plain PyTorch loop; the check then writes
them in place, as an optimizer does. A bound module follows the vector. Both see the same real minibatches. If they
differ, the model would train differently here than in a plain loop, or not at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.bound_module import BoundModule
from asgd_lab.tasks.determinism import repeatable
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.network import Network
from asgd_lab.tasks.recipe import casting
from asgd_lab.tasks.trees import cloned

# The relative difference of two losses or gradients that rounding may cause.
_NEAR = {"float32": 1e-3, "bfloat16": 3e-2}


class _Found(NamedTuple):
    """The results of one minibatch."""

    loss: Tensor
    changes: dict[str, Tensor]  # gradients of the parameters that get one; parameters after a user's own step
    metrics: list[str]
    leaves: list[Tensor]  # of the loss's graph: all tensors that a gradient reaches


def check_memory(model: nn.Module) -> None:
    """A `ScenarioError` if two parameters, or a parameter and a buffer, are different tensors that share memory."""
    parameters = list(model.named_parameters())
    everything = [*parameters, *model.named_buffers()]
    by_storage: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in everything:
        if tensor.layout == torch.strided and tensor.numel():
            by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append((name, tensor))
    trained = {name for name, _ in parameters}
    for name, parameter in parameters:
        if len(_addresses(parameter)) < parameter.numel():
            message = f"its parameter {name} of {tuple(parameter.shape)} is expanded: its elements share memory"
            raise ScenarioError.at("task.model", message)
    for together in by_storage.values():
        for (one, first), (other, second) in itertools.combinations(together, 2):
            if (one in trained or other in trained) and _overlap(first, second):
                message = f"its tensors {one} and {other} share memory; tie weights by using one Parameter twice"
                raise ScenarioError.at("task.model", message)


def check_start(name: str, model: nn.Module) -> None:
    """A `ScenarioError` if a parameter has a NaN at the start, or an infinity where it is trained."""
    for label, each in model.named_parameters():
        bad = each.isnan() if not each.requires_grad else ~each.isfinite()
        if bad.any():
            what = "nan" if each[bad].isnan().any() else "inf"
            count = f"{int(bad.sum()):,} of {each.numel():,} numbers"
            raise ScenarioError.at("task.model", f"{name} starts with a parameter {label} that has {what}: {count}")


def check_same_start(name: str, one: nn.Module, other: nn.Module) -> None:
    """A `ScenarioError` if two modules of one factory and one seed start with other parameters."""
    others = dict(other.named_parameters())  # scripted modules have no get_parameter
    for label, first in one.named_parameters():
        if label not in others or not torch.equal(first.detach(), others[label].detach()):
            message = f"{name} starts with another {label} each time that it is built from one seed; what it draws"
            raise ScenarioError.at(
                "task.model", f"{message} must come from torch's, numpy's or Python's global generator"
            )


def check_network(network: Network, name: str, minibatches: Sequence[Any], device: torch.device) -> list[str]:
    """The names of a minibatch's metrics; a `ScenarioError` says why the model cannot be trained.

    Two minibatches are tried; their tensors are not changed.
    """
    try:
        plain, bound, expected, found = _compared(network, name, minibatches, _move, device)
    except ScenarioError:  # a model may refuse parameters that training would not give it
        plain, bound, expected, found = _compared(network, name, minibatches, _move_alike, device)
    _check_inside(name, plain, expected)
    if replaced := bound.replaced():
        message = f"{name} replaces its parameter {replaced[0]} by another while it trains"
        raise ScenarioError.at("task.model", message)
    if late := bound.late():
        message = f"{name} registers {late[0]} when it trains; register it in its constructor"
        raise ScenarioError.at("task.model", message)
    for step, (one, other) in enumerate(zip(expected, found, strict=True)):
        if (trouble := _difference(one, other, _NEAR[network.recipe.precision])) is None:
            continue
        if step == 0:
            message = f"{name} computes something else each time that it is built from one seed: {trouble} differs"
        else:
            message = (
                f"{name} does not follow its parameters: when they change, {trouble} stays or differs; it keeps a "
                "tensor that was made from them, such as a view or a product; make it in forward()"
            )
        raise ScenarioError.at("task.model", message)
    metrics = [each.metrics for each in expected]
    if metrics[0] != metrics[1]:
        here, there = (", ".join(each) or "none" for each in metrics)
        message = f"{name} has these metrics of one minibatch: {here}; of the next: {there}; give the same of all"
        raise ScenarioError.at("task.loss", message)
    return metrics[0]


def _compared(
    network: Network, name: str, minibatches: Sequence[Any], move: Callable[[Iterable[Tensor]], None],
    device: torch.device,
) -> tuple[nn.Module, BoundModule, list[_Found], list[_Found]]:  # fmt: skip
    """A plain module and a bound one, and the results of the minibatches for each."""
    plain, vector = network.fresh(device).model, network.initial().to(device)
    bound = network.fresh(device)
    check_memory(plain)
    check_start(name, plain)
    check_same_start(name, plain, bound.model)
    bound.bind(bound.place(vector, network.buffers))

    def write() -> None:
        bound.settle()
        move(each.data for each in bound.parameters.values())  # views of the vector, or a replica's own

    with preserving_generators(), repeatable(device):
        expected, found = (
            list(_minibatches(network, name, model, moved, minibatches, device))
            for model, moved in ((plain, lambda: move(plain.parameters())), (bound.model, write))
        )
    return plain, bound, expected, found


def _minibatches(
    network: Network, name: str, model: nn.Module, write: Callable[[], None], minibatches: Sequence[Any],
    device: torch.device,
) -> Iterator[_Found]:  # fmt: skip
    """The results of one module; `write` moves its parameters before every minibatch but the first."""
    recipe = network.recipe
    steppers = recipe.make(model) if recipe.own_step is not None else ()
    for step, minibatch in enumerate(minibatches):
        if step:
            write()
        batch = cloned(minibatch)
        seed_all(key(recipe.seed, "model", 0, step))
        if recipe.own_step is not None:
            try:
                loss, metrics = recipe.own_step(model, steppers, batch)
            except RunFailed:
                raise
            except Exception as error:
                raise ScenarioError.at("task.model", f"{name} cannot learn: {one_line(error)}") from error
            changes = {each: parameter.detach().clone() for each, parameter in model.named_parameters()}
        else:
            assert recipe.objective is not None
            with casting(recipe.precision, device):
                loss, metrics = recipe.objective.tried(name, model, batch)
            changes = _gradients(name, model, loss)
        yield _Found(loss.detach().clone(), changes, sorted(metrics), list(_leaves(loss)))


def _gradients(name: str, model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    for parameter in model.parameters():
        parameter.grad = None
    try:
        torch.autograd.backward(loss)
    except Exception as error:
        raise ScenarioError.at("task.model", f"{name} cannot learn: {one_line(error)}") from error
    found = {label: each.grad.clone() for label, each in model.named_parameters() if each.grad is not None}
    if not found:
        message = f"{name} cannot learn: the loss has a gradient, and it reaches no parameter of the model"
        raise ScenarioError.at("task.model", message)
    return found


def _check_inside(name: str, plain: nn.Module, expected: Sequence[_Found]) -> None:
    """A `ScenarioError` if a lasting tensor that gets a gradient is none of the module's parameters."""
    inside = {id(parameter) for parameter in plain.parameters()}
    lasting = {id(leaf) for leaf in expected[0].leaves} & {id(leaf) for leaf in expected[-1].leaves}
    for leaf in expected[0].leaves:
        if id(leaf) in lasting and id(leaf) not in inside:
            what = f"{_named(plain, leaf)} of {tuple(leaf.shape)}"
            message = f"{name} uses {what}, which is none of its parameters; register it, as nn.ParameterList does"
            raise ScenarioError.at("task.model", message)


def _difference(expected: _Found, found: _Found, near: float) -> str | None:
    if _far(expected.loss, found.loss, near):
        return "the loss"
    for name in expected.changes.keys() | found.changes.keys():
        one, other = expected.changes.get(name), found.changes.get(name)
        if one is None or other is None or _far(one, other, near):
            return f"the gradient of {name}"
    return None


def _far(expected: Tensor, found: Tensor, near: float) -> bool:
    if expected.is_sparse or found.is_sparse:
        expected, found = expected.to_dense(), found.to_dense()
    size = float(expected.nan_to_num().norm())
    return not torch.allclose(expected, found, rtol=near, atol=near * size, equal_nan=True)


def _move(weights: Iterable[Tensor]) -> None:
    """Change the weights in place, as an optimizer does."""
    with torch.no_grad():
        for weight in weights:
            steps = torch.arange(weight.numel(), device=weight.device, dtype=weight.dtype).view(weight.shape)
            weight.mul_(1.05).add_(torch.sin(steps), alpha=0.02)


def _move_alike(weights: Iterable[Tensor]) -> None:
    """Change the weights in place; equal elements of a weight stay equal."""
    with torch.no_grad():
        for weight in weights:
            weight.mul_(1.05).add_(0.02)


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """The leaf tensors of the graph."""
    waiting, seen = [loss.grad_fn], {loss.grad_fn}
    while waiting:
        node: Any = waiting.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            yield node.variable
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _named(model: nn.Module, leaf: Tensor) -> str:
    """The attribute in which a module keeps a tensor, itself or in a list or a dict, for a message."""
    for prefix, module in model.named_modules():
        for attribute, value in vars(module).items():
            inside = (
                value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            )
            if any(each is leaf for each in inside):
                return f"a tensor in {prefix}.{attribute}".replace(" in .", " in ")
    return "a tensor"


def _addresses(tensor: Tensor) -> Tensor:
    """The storage offsets of its elements, each once."""
    start = int(tensor.storage_offset())
    if tensor.is_contiguous() or not tensor.numel():
        return torch.arange(start, start + tensor.numel())
    last = start + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    places = torch.arange(int(last) + 1).as_strided(tensor.shape, tensor.stride(), start)
    return torch.unique(places)  # type: ignore[no-any-return]


def _overlap(one: Tensor, other: Tensor) -> bool:
    first, second = _addresses(one), _addresses(other)
    if first[-1] < second[0] or second[-1] < first[0]:
        return False
    return bool(torch.isin(first, second).any())
