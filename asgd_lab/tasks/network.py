"""A learner for any module and any loss: the step of a plain PyTorch loop, over a vector that the caller owns.

The same torch operations run on every backend. The only global state is that of the generators of dropout and of the
user's code: torch's default one, numpy's and Python's. They are seeded before each minibatch.

Replicas of one process share a module, which is bound to each replica's vector and buffers in turn. If a module has
other state (a count in a Python attribute), each replica gets a module of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks.bound_module import BoundModule, Buffers, layout_of
from asgd_lab.tasks.clipping_and_schedules import Adjust
from asgd_lab.tasks.feeds import Feed, Order
from asgd_lab.tasks.global_generators import generators_of, preserving_generators, seed_all, seed_with
from asgd_lab.tasks.objective import Objective, share
from asgd_lab.tasks.optimizer_state import load_state, state_of
from asgd_lab.tasks.optimizers import MakeOptimizer
from asgd_lab.tasks.precision import casting
from asgd_lab.tasks.torch_settings import preserving_settings

_OF_FILES = (torch.float16, torch.float32, torch.float64)


def plain(buffer: Tensor) -> Tensor:
    """The buffer in a type that files can hold, with the same values."""
    return buffer.float() if buffer.is_floating_point() and buffer.dtype not in _OF_FILES else buffer


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parts of a network's training, beside its data."""

    factory: Callable[[], nn.Module]
    """Makes a module from the global generators: equal seeds give equal modules."""
    objective: Objective
    make: MakeOptimizer
    adjust: Adjust | None
    seed: int
    shares_buffers: bool
    """Whether buffers of floating point lie in the vector."""
    precision: str = "float32"
    """The precision of a minibatch's forward pass and loss, see `precision.casting`."""


@final
class NetworkLearner:
    """A replica: its tensors in a module, its data order, and its local optimizer."""

    def __init__(
        self, network: Network, bound: BoundModule, worker: int, params: Tensor, gradients: Tensor | None,
        labels: Tensor, order: Order, feed: Feed, buffers: Buffers | None = None,
    ) -> None:  # fmt: skip
        self._network, self._bound, self.worker = network, bound, worker
        self._labels, self.order, self._feed = labels, order, feed
        self.params, self._gradients = params, gradients
        recipe = network.recipe
        self._place = bound.place(params, network.buffers if buffers is None else buffers)
        bound.bind(self._place)
        self.module = bound.model
        self.parameters = dict(zip(bound.parameters, self._place.views, strict=True))
        self.handles = bound.parameters  # the module's own parameters, as the optimizer has them
        self._weights = [weight for weight in self.handles.values() if weight.requires_grad]
        views = network.layout.views(gradients) if gradients is not None else []
        named = zip(self.handles.items(), views, strict=False)
        self.sums = {name: view for (name, parameter), view in named if parameter.requires_grad}
        self._make, self._adjust, self._seed = recipe.make, recipe.adjust, recipe.seed
        self.optimizer = self._make(self._weights)
        self._generators = generators_of(params.device)
        self._casting = casting(recipe.precision, params.device)
        self._objective = recipe.objective
        self._has_error: bool | None = None  # not known before the first outputs
        self.version = 0

    def minibatch(self, step: int) -> tuple[float, float]:
        """Take one local step in place; return the mean loss and the share of wrong answers before it."""
        loss, wrong = self.backward(step)
        self.step(step)
        return loss.item(), math.nan if wrong is None else share(*wrong)

    def backward(self, step: int) -> tuple[Tensor, tuple[Tensor, int] | None]:
        """The first half of a minibatch: its gradient, loss and wrong answers."""
        self._bound.bind(self._place)
        labels, inputs = self._labels.index_select(0, self.order(step)), self._feed(step)
        seed_with(self._generators, key(self._seed, "model", self.worker, step))
        torch.clear_autocast_cache()
        with self._casting:
            outputs = self.module(inputs)
            loss = self._objective.loss(outputs, labels)
        self._bound.check_trained()
        for weight in self._weights:
            weight.grad = None
        torch.autograd.backward(loss)
        if self._has_error is None:
            self._has_error = self._objective.defines_error(outputs, labels)
        # Counted before the step: outputs may be views of parameters.
        return loss, self._objective.wrong(outputs, labels) if self._has_error else None

    def step(self, step: int) -> None:
        """The second half of a minibatch: clipping, schedule, and the local optimizer's step."""
        if self._adjust is not None:
            self._adjust(self.optimizer, self._weights, step, self.version)
        if self.sums:
            self._gather()
        self.optimizer.step()
        self._bound.settle()
        self._bound.check(step)

    def watched(self, step: int) -> tuple[Tensor, bool]:
        """The first half of a minibatch: its loss, and whether it alone changed any bit of the vector."""
        before = self.params.clone()
        loss, _ = self.backward(step)
        self._bound.settle()
        return loss, not torch.equal(self.params.view(torch.int32), before.view(torch.int32))

    def _gather(self) -> None:
        pairs = [(total, weight.grad) for total, weight in zip(self.sums.values(), self._weights, strict=True)]
        totals = [total for total, gradient in pairs if gradient is not None]
        torch._foreach_add_(totals, [gradient for _, gradient in pairs if gradient is not None])

    def reset_momentum(self) -> None:
        """Replace the local optimizer by a new one: some classes set up their state in the constructor."""
        self._bound.bind(self._place)
        self.optimizer = self._make(self._weights)

    def buffers(self) -> Buffers:
        """Its buffers that differ from the start's, such as BatchNorm's statistics; no copies are made."""
        start, shared = self._network.buffers, self._bound.shared
        found = self._bound.buffers(self._place)
        return {
            name: buffer
            for name, buffer in found.items()
            if name not in shared and not (name in start and torch.equal(buffer.cpu(), start[name]))
        }

    def state(self) -> dict[str, Tensor]:
        """The local optimizer's state, and the model's buffers."""
        found = self._bound.buffers(self._place)
        return state_of(self.optimizer) | {f"model.{name}": plain(buffer) for name, buffer in found.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the optimizer's state and the model's buffers."""
        load_state(self.optimizer, state)
        prefix = "model."
        found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        self._bound.load(self._place, found)

    def warm_up(self) -> None:
        """Take a step with another module, to warm the process's kernels, caches and lazy imports."""
        scratch = self.params.clone()
        gradients = None if self._gradients is None else torch.zeros_like(scratch)
        with preserving_generators():
            NetworkLearner(
                self._network, self._network.fresh(scratch.device), self.worker, scratch, gradients, self._labels,
                self.order, self._feed, self._bound.buffers(self._place),
            ).minibatch(0)  # fmt: skip


@final
class Network:
    """The module at its initial parameters, the layout of its vector, and modules for learners."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        model = self._built()
        self.layout = layout_of(model, recipe.shares_buffers)
        self._initial = torch.zeros(self.layout.size, dtype=torch.float32)
        floating = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        values = [*model.parameters(), *(floating if recipe.shares_buffers else [])]
        for view, value in zip(self.layout.views(self._initial), values, strict=True):
            view.copy_(value.detach())
        self.buffers: Buffers = {name: buffer.detach().cpu().clone() for name, buffer in model.named_buffers()}
        """Initial buffers of every replica, on the host; shared ones are in the vector as well."""
        bound = BoundModule(model, self.layout, recipe.shares_buffers)
        self.buffer_names = bound.names
        """Names of its buffers, also of those that are empty at the start."""
        self._unused: list[BoundModule] = [bound]
        self._training: dict[torch.device, BoundModule] = {}
        self.separate = False
        """Whether each learner gets a module of its own."""
        recipe.make([weight for weight in model.parameters() if weight.requires_grad])

    def initial(self) -> Tensor:
        """(P,) the module's own initialisation, drawn from the seed's stream."""
        return self._initial.clone()

    def module(self, device: torch.device) -> BoundModule:
        """The module for a new learner: the shared one, or a new one if learners may not share."""
        if self.separate or device not in self._training:
            self._training[device] = self.fresh(device)
        return self._training[device]

    def fresh(self, device: torch.device) -> BoundModule:
        """An unused module on that device."""
        bound = self._unused.pop() if self._unused else None
        if bound is None:
            model = self._built()
            if layout_of(model, self.recipe.shares_buffers) != self.layout:
                message = "its factory returns another model the second time: parameters of other shapes"
                raise ScenarioError.at("task.model", message)
            bound = BoundModule(model, self.layout, self.recipe.shares_buffers)
        bound.model.to(device)
        return bound

    def _built(self) -> nn.Module:
        with preserving_generators(), preserving_settings():
            seed_all(key(self.recipe.seed, "initial"))
            return self.recipe.factory()
