"""The parts of a network's training: its model, loss, minibatches, optimizers, seeds and precision.

Autocast caches its casts of parameters, by their tensors, until its outermost context ends: it would not see that a
vector has changed under them. So the cache is cleared before each minibatch, including casts by an autocast of the
model's own. A run in its caller's process does not use the caller's autocast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.clipping_and_schedules import Adjust
from asgd_lab.tasks.optimizer_state import Stepper
from asgd_lab.tasks.optimizers import MakeOptimizer

Metrics = Mapping[str, tuple[Any, Any]]
"""By name, a sum and its weight, numbers or tensors (): over several minibatches both add up."""


class Objective(Protocol):
    """The loss and the metrics of a minibatch of any form."""

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Metrics]:
        """The mean loss, a tensor () with a gradient, and metrics; `error` is the share of wrong answers."""
        ...

    def tried(self, name: str, model: nn.Module, batch: Any) -> tuple[Tensor, Metrics]:
        """The same; a `ScenarioError` if the model, which `name` describes, or the loss fails."""
        ...


class Batches(Protocol):
    """One worker's minibatches, on the device of its replica: a function of the step."""

    def __call__(self, step: int) -> Any:
        """The minibatch of that step."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The place in a stream: with it, a learner that resumes need not read all earlier minibatches."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the `state` of another learner of the same worker."""
        ...

    def again(self) -> Batches:
        """The same minibatches, for another learner."""
        ...


OwnStep = Callable[[nn.Module, Sequence[Stepper], Any], tuple[Tensor, Metrics]]
"""A whole minibatch of a user's: forward and backward passes, and the steps of its optimizers."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parts of a network's training, beside its data."""

    factory: Callable[[], nn.Module]
    """Makes a module from the global generators: equal seeds give equal modules."""
    objective: Objective | None
    """None: the user's own step has the loss."""
    make: Callable[[nn.Module], Sequence[Stepper]]
    """Makes the local optimizer of a module, or several; schedulers may follow them."""
    adjust: Adjust | None
    seed: int
    shares_buffers: bool
    """Whether buffers of floating point lie in the vector."""
    precision: str = "float32"
    """The precision of a minibatch's forward pass and loss, see `casting`."""
    local: Sequence[str] = ()
    """Patterns of names of parameters that are trained, and stay with each replica."""
    own_step: OwnStep | None = None
    """In place of the objective's gradient and the optimizers' steps."""


def trained_by(make: MakeOptimizer) -> Callable[[nn.Module], Sequence[Stepper]]:
    """One optimizer over all parameters that are to be trained."""
    return lambda model: [make([weight for weight in model.parameters() if weight.requires_grad])]


def casting(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A reusable context for the forward pass and the loss of a minibatch on that device."""
    if precision == "float32":
        return contextlib.nullcontext()
    try:
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=True)
    except RuntimeError as error:  # from a GPU without bfloat16
        raise ScenarioError.at("task.precision", f"{precision} cannot be used here: {one_line(error)}") from error
