"""A learner for any module and any loss: the step of a plain PyTorch loop, over a vector that the caller owns.

The same torch operations run on every backend. The only global state is that of the generators of dropout and of the
user's code: torch's default one, numpy's and Python's. They are seeded before each minibatch.

Replicas of one process share a module, which is bound to each replica's vector and buffers in turn. If a module has
other state (a count in a Python attribute), each replica gets a module of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks.bound_module import BoundModule, Buffers, in_vector, layout_of
from asgd_lab.tasks.global_generators import generators_of, preserving_generators, seed_all, seed_with
from asgd_lab.tasks.optimizer_state import Stepper, load_state, state_of
from asgd_lab.tasks.recipe import Batches, Metrics, OwnStep, Recipe, casting
from asgd_lab.tasks.torch_settings import preserving_settings

_MODEL = "model."  # prefix, in a learner's state, of the names of buffers
_OF_FILES = (torch.float16, torch.float32, torch.float64)


def plain(buffer: Tensor) -> Tensor:
    """The buffer in a type that files can hold, with the same values."""
    return buffer.float() if buffer.is_floating_point() and buffer.dtype not in _OF_FILES else buffer


@final
class NetworkLearner:
    """A replica: its tensors in a module, its minibatches, and its local optimizers."""

    def __init__(
        self, network: Network, bound: BoundModule, worker: int, params: Tensor, gradients: Tensor | None,
        batches: Batches, buffers: Buffers | None = None,
    ) -> None:  # fmt: skip
        self._network, self._bound, self.worker = network, bound, worker
        self.batches, self.params, self._gradients = batches, params, gradients
        self._recipe = network.recipe
        self._place = bound.place(params, network.buffers if buffers is None else buffers)
        bound.bind(self._place)
        self.module = bound.model
        self.parameters = dict(zip(bound.parameters, self._place.views, strict=True))
        self.handles = bound.parameters  # the module's own parameters, as the optimizer has them
        self._weights = [weight for weight in self.handles.values() if weight.requires_grad]
        views = network.layout.views(gradients) if gradients is not None else []
        self.sums = dict(zip(bound.synchronised, views, strict=False))
        self._steppers: Sequence[Stepper]
        self._make_optimizers()
        self._generators = generators_of(params.device)
        self._casting = casting(self._recipe.precision, params.device)
        self.version = 0

    @property
    def takes_whole_steps(self) -> bool:
        """Whether a minibatch is a user's own step, which has no halves."""
        return self._recipe.own_step is not None

    @property
    def most_steps(self) -> int | None:
        """The least total of its schedulers that fail beyond one, as OneCycleLR does.

        No other scheduler of torch fails, and a step of the user's own may leave some out.
        """
        totals = [getattr(each, "total_steps", None) for each in self._steppers if isinstance(each, LRScheduler)]
        return None if self.takes_whole_steps else min((each for each in totals if isinstance(each, int)), default=None)

    def _make_optimizers(self) -> None:
        self._steppers = self._recipe.make(self.module)
        self.optimizers = [each for each in self._steppers if isinstance(each, torch.optim.Optimizer)]
        self.optimizer = self.optimizers[0]

    def minibatch(self, step: int) -> tuple[float, float]:
        """Take one local step in place; return the mean loss and the share of wrong answers before it."""
        own_step = self._recipe.own_step
        if own_step is None:
            loss, metrics = self.backward(step)
            self.step(step)
        else:
            loss, metrics = self._whole(step, own_step)
        return loss.item(), share(metrics)

    def backward(self, step: int) -> tuple[Tensor, Metrics]:
        """The first half of a minibatch: its gradient, loss and metrics."""
        batch, objective = self._begin(step), self._recipe.objective
        assert objective is not None
        with self._casting:
            # Metrics are counted before the step: outputs may be views of parameters.
            loss, metrics = objective(self.module, batch)
        self._bound.check_trained()
        for weight in self._weights:
            weight.grad = None
        torch.autograd.backward(loss)
        return loss, metrics

    def _begin(self, step: int) -> Any:
        self._bound.bind(self._place)
        batch = self.batches(step)
        seed_with(self._generators, key(self._recipe.seed, "model", self.worker, step))
        torch.clear_autocast_cache()
        return batch

    def step(self, step: int) -> None:
        """The second half of a minibatch: clipping, schedule, and the local optimizers' steps."""
        self._adjust(step)
        if self.sums:
            self._gather()
        for each in self._steppers:
            each.step()
        self._end(step)

    def _adjust(self, step: int) -> None:
        if self._recipe.adjust is not None:
            self._recipe.adjust(self.optimizers, self._weights, step, self.version)

    def _end(self, step: int) -> None:
        self._bound.settle()
        self._bound.check(step)

    def _whole(self, step: int, own_step: OwnStep) -> tuple[Tensor, Metrics]:
        batch = self._begin(step)
        self._adjust(step)
        loss, metrics = own_step(self.module, self._steppers, batch)
        self._bound.check_trained()
        self._end(step)
        return loss, metrics

    def watched(self, step: int) -> tuple[Tensor, bool]:
        """The first half of a minibatch: its loss, and whether it alone changed any bit of a parameter."""
        here = [self.params, *(self.parameters[name] for name in self._bound.outside)]
        before = [each.clone() for each in here]
        loss, _ = self.backward(step)
        self._bound.settle()
        pairs = zip(here, before, strict=True)
        return loss, not all(torch.equal(now.view(torch.int32), then.view(torch.int32)) for now, then in pairs)

    def _gather(self) -> None:
        pairs = [(total, self.handles[name].grad) for name, total in self.sums.items()]
        totals = [total for total, gradient in pairs if gradient is not None]
        torch._foreach_add_(totals, [gradient for _, gradient in pairs if gradient is not None])

    def reset_momentum(self) -> None:
        """Replace the local optimizers by new ones: some classes set up their state in the constructor.

        A user's own schedulers continue, and so do the rates that they have set.
        """
        self._bound.bind(self._place)
        before = self._steppers
        self._make_optimizers()
        if len(self.optimizers) < len(before):
            for old, new in zip(before, self._steppers, strict=True):
                if isinstance(old, torch.optim.Optimizer) and isinstance(new, torch.optim.Optimizer):
                    for theirs, ours in zip(old.param_groups, new.param_groups, strict=True):
                        ours["lr"] = theirs["lr"]
                else:
                    new.load_state_dict(old.state_dict())

    def buffers(self) -> Buffers:
        """Its buffers and own parameters that differ from the start's, such as BatchNorm's statistics; no copies."""
        shared = self._bound.shared
        found = self._bound.buffers(self._place).items()
        return {name: buffer for name, buffer in found if name not in shared and self._differs(name, buffer)}

    def _differs(self, name: str, buffer: Tensor) -> bool:
        """Whether it differs from the start's."""
        start = self._network.buffers
        return not (name in start and torch.equal(buffer.cpu(), start[name]))

    def state(self) -> dict[str, Tensor]:
        """The local optimizers' state, the model's buffers, its own parameters if they differ from the start's, and the
        state of a stream of minibatches.
        """
        found = {
            name + (f"@{number}" if number else ""): value
            for number, each in enumerate(self._steppers)
            for name, value in state_of(each).items()
        }
        outside = self._bound.outside
        buffers = {
            name: each
            for name, each in self._bound.buffers(self._place).items()
            if name not in outside or self._differs(name, each)
        }
        return found | {_MODEL + name: plain(each) for name, each in buffers.items()} | self.batches.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the `state` of another learner of the same worker."""
        for number, each in enumerate(self._steppers):
            load_state(each, state if not number else _behind(f"@{number}", state))
        found = {name.removeprefix(_MODEL): value for name, value in state.items() if name.startswith(_MODEL)}
        self._bound.load(self._place, found)
        self.batches.load(state)

    def warm_up(self) -> None:
        """Take a step with another module, to warm the process's kernels, caches and lazy imports."""
        scratch = self.params.clone()
        gradients = None if self._gradients is None else torch.zeros_like(scratch)
        with preserving_generators():
            NetworkLearner(
                self._network, self._network.fresh(scratch.device), self.worker, scratch, gradients,
                self.batches.again(), self._bound.buffers(self._place),
            ).minibatch(0)  # fmt: skip


def share(metrics: Metrics) -> float:
    """The share of wrong answers of a minibatch; nan where it has none, or where no label counts."""
    wrong, counted = metrics.get("error", (0, 0))
    return float(wrong) / float(counted) if counted else math.nan


def _behind(suffix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removesuffix(suffix): value for name, value in state.items() if name.endswith(suffix)}


def _check_local(model: nn.Module, local: Sequence[str]) -> None:
    """A `ScenarioError` for a pattern that matches no trained parameter, or if nothing is left to synchronise."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for index, pattern in enumerate(local):
        if not any(fnmatchcase(name, pattern) for name in trained):
            raise ScenarioError.at(f"task.local.{index}", f"matches no trained parameter; these are {_few(trained)}")
    if not in_vector(model, False, local)[0]:
        raise ScenarioError.at("task.local", f"leaves no parameter to synchronise; all are {_few(trained)}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@final
class Network:
    """The module at its initial parameters, the layout of its vector, and modules for learners."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._first: dict[int, Tensor] = {}  # the parameters of the first module, by their identities
        model = self._built()
        _check_local(model, recipe.local)
        self.layout = layout_of(model, recipe.shares_buffers, recipe.local)
        self._initial = torch.zeros(self.layout.size, dtype=torch.float32)
        values = in_vector(model, recipe.shares_buffers, recipe.local)[1]
        for view, value in zip(self.layout.views(self._initial), values, strict=True):
            view.copy_(value.detach())
        bound = BoundModule(model, self.layout, recipe.shares_buffers, recipe.local)
        outside = [*model.named_buffers(), *((name, bound.parameters[name]) for name in sorted(bound.outside))]
        self.buffers: Buffers = {name: each.detach().cpu().clone() for name, each in outside}
        """A replica's buffers and own parameters at the start, on the host; shared buffers are in the vector too."""
        self.buffer_names = bound.names
        """Their names, also of buffers that are empty at the start."""
        self._unused: list[BoundModule] = [bound]
        self._training: dict[torch.device, BoundModule] = {}
        self.separate = False
        """Whether each learner gets a module of its own."""
        recipe.make(model)

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
            if layout_of(model, self.recipe.shares_buffers, self.recipe.local) != self.layout:
                message = "its factory returns another model the second time: parameters of other shapes"
                raise ScenarioError.at("task.model", message)
            bound = BoundModule(model, self.layout, self.recipe.shares_buffers, self.recipe.local)
        bound.model.to(device)
        return bound

    def _built(self) -> nn.Module:
        with preserving_generators(), preserving_settings():
            seed_all(key(self.recipe.seed, "initial"))
            model = self.recipe.factory()
        for name, parameter in model.named_parameters():
            if id(parameter) in self._first:
                message = f"its factory returns the same parameter {name} again; each call must make new ones"
                raise ScenarioError.at("task.model", message)
        self._first = self._first or {id(parameter): parameter for parameter in model.parameters()}
        return model
