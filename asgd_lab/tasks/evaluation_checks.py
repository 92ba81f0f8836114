"""Checks before a run of a network's evaluations: inputs and labels alone and in parts, and state that they miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, final

import torch
from torch import Tensor, nn

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.bound_module import Buffers
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.network import Network, NetworkLearner
from asgd_lab.tasks.objective import Objective, Sums
from asgd_lab.tasks.training_checks import near

T = TypeVar("T")
Minibatch = tuple[Tensor, Tensor]
"""Inputs and labels."""


@final
class Evaluated:
    """A module for trial evaluations of a network."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self._network, self._bound = network, network.fresh(device)

    def __call__(self, params: Tensor, buffers: Buffers, measured: Callable[[nn.Module], T]) -> T:
        """The result of `measured` for the module in evaluation mode, with these parameters and buffers."""
        self._bound.bind(self._bound.place(params.clone(), {**self._network.buffers, **buffers}))
        return in_evaluation(self._bound.model, measured)


def in_evaluation(model: nn.Module, measured: Callable[[nn.Module], T]) -> T:
    """The result of `measured` for the module in evaluation mode."""
    model.eval()
    seed_all(key(0, "evaluate"))
    return measured(model)


def ends(network: Network, learner: NetworkLearner) -> list[tuple[Tensor, Buffers]]:
    """Parameters and buffers at the start, and after the learner's minibatches."""
    return [(network.initial().to(learner.params.device), network.buffers), (learner.params, learner.buffers())]


def check_evaluation(
    network: Network, name: str, objective: Objective, learner: NetworkLearner, minibatches: Sequence[Minibatch],
    shorter: int,
) -> bool:  # fmt: skip
    """Whether the model can evaluate only whole minibatches, for example because a buffer has their size.

    It is tried with its initial parameters and with those after the learner's minibatches, on all `minibatches`, and on
    the first one cut to `shorter` samples. A `ScenarioError` if it cannot evaluate a whole minibatch, or if its outputs
    for a filled one could not be cut.
    """
    inputs, labels = minibatches[0]
    whole = False
    with preserving_generators(), torch.no_grad():
        evaluated = Evaluated(network, inputs.device)
        for params, buffers in ends(network, learner):
            for which, minibatch in enumerate(minibatches):
                try:
                    outputs, _ = evaluated(params, buffers, _both(objective, *minibatch))
                except Exception as error:
                    where = " where inputs or labels are least or greatest" if which else ""
                    raise ScenarioError.at(
                        "task.model", f"{name} cannot be evaluated{where}: {one_line(error)}"
                    ) from error
                if which:
                    continue
                try:
                    evaluated(params, buffers, _both(objective, inputs[:shorter], labels[:shorter]))
                except Exception as error:
                    if not isinstance(outputs, Tensor) or not outputs.dim() or len(outputs) != len(labels):
                        message = f"{name} cannot be evaluated on {shorter} samples, as the last minibatch may have: "
                        raise ScenarioError.at("task.model", message + one_line(error)) from error
                    whole = True
    return whole


def doubts(
    network: Network, name: str, objective: Objective, learner: NetworkLearner, minibatch: Minibatch, loss: str | None
) -> Iterator[str]:
    """Warnings if evaluations differ from those of a plain loop. The learner must not be used afterwards."""
    inputs, labels = minibatch
    if loss is not None:
        yield from _parts(network, objective, learner, minibatch, loss)

    def measured(model: nn.Module) -> dict[str, float]:
        found = _both(objective, inputs, labels)(model)[1]
        return {"loss": found.loss, "wrong": found.wrong}

    yield from hidden_state(network, name, learner, measured)


def hidden_state(
    network: Network, name: str, learner: NetworkLearner, measured: Callable[[nn.Module], Mapping[str, float]]
) -> Iterator[str]:
    """A warning if the learner's module evaluates otherwise than a new one with its parameters and buffers.

    The learner must not be used afterwards.
    """
    device = learner.params.device
    with preserving_generators(), torch.no_grad():
        buffers = {each: value.clone() for each, value in learner.buffers().items()}
        found = Evaluated(network, device)(learner.params, buffers, measured)
        own = in_evaluation(learner.module, measured)
    if not all(near(found[each], own[each], device) for each in found):
        yield (
            f"task.model: {name} keeps something that is neither a parameter nor a buffer and that changes what it "
            "evaluates; evaluations take it as it is at the start; register_buffer()"
        )


def _parts(
    network: Network, objective: Objective, learner: NetworkLearner, minibatch: Minibatch, loss: str
) -> Iterator[str]:
    """A warning if the loss is not a mean over samples."""
    inputs, labels = minibatch
    cut = len(labels) // 3
    if not cut:
        return
    with preserving_generators(), torch.no_grad():
        evaluated = Evaluated(network, inputs.device)

        def sums(piece: slice) -> Sums:
            return evaluated(learner.params, learner.buffers(), _both(objective, inputs[piece], labels[piece]))[1]

        whole = sums(slice(None))
        try:
            parts = [sums(piece) for piece in (slice(cut), slice(cut, None))]
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


def _both(objective: Objective, inputs: Tensor, labels: Tensor) -> Callable[[nn.Module], tuple[object, Sums]]:
    """Outputs and sums of copies of a minibatch, as a function of the model."""

    def found(model: nn.Module) -> tuple[object, Sums]:
        outputs = model(inputs.clone())
        return outputs, objective.sums(outputs, labels.clone())

    return found
