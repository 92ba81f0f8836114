"""The base of tasks that train a network: one learner, one evaluation, whatever the minibatches are.

BatchNorm's running statistics are not parameters: they stay local to a replica, are never pushed, and no fetch replaces
them. A replica is evaluated with its own. For the server's parameters they are estimated again on a fixed sample of the
training set. If the scenario makes them the server's, they lie in the flat vector, behind the parameters. Layers in
evaluation mode keep the statistics that they have.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks.base import CPU, START, Batch, Data
from asgd_lab.tasks.bound_module import BoundModule
from asgd_lab.tasks.evaluation import estimated
from asgd_lab.tasks.global_generators import generators_of, preserving_generators, seed_with
from asgd_lab.tasks.gradient_pushes import check_groups
from asgd_lab.tasks.network import Network, NetworkLearner, plain
from asgd_lab.tasks.python_state import modes_of, python_state, restore_modes
from asgd_lab.tasks.recipe import Batches, Recipe
from asgd_lab.tasks.sharing_checks import may_share, resumes
from asgd_lab.tasks.training_checks import try_steps

ALL_OF_TRAINING = 2048  # training samples on which `evaluate` measures, and estimates BatchNorm's statistics


class NetworkTask(ABC):
    """A network at its initial parameters, and learners of it."""

    device_bytes = 0

    def __init__(self, name: str, recipe: Recipe, start: Data, size_bytes: int | None) -> None:
        """`name` describes the model in messages; `start` may have buffers of a warm start; `size_bytes` are stated."""
        self.network, self.name, self._warmed = Network(recipe), name, Data()
        self.start_with({each.removeprefix(START): value for each, value in start.items() if each.startswith(START)})
        self.size = self.network.layout.size
        self.size_bytes = size_bytes or 4 * self.size
        self._evaluating: dict[torch.device, BoundModule] = {}
        self._learners, self.has_error = 0, False
        self.doubts: list[str] = []
        self.most_steps: int | None = None

    @property
    @abstractmethod
    def evaluated(self) -> Sequence[tuple[str, str]]:
        """Split and metric of each row that `evaluate` returns, known after `check`."""

    @abstractmethod
    def batches(self, worker: int, device: torch.device) -> Batches:
        """A worker's minibatches on that device; worker -1 is a warm start's."""

    @abstractmethod
    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """A `ScenarioError` if the model does not train as in a plain loop; two real minibatches are tried."""

    @abstractmethod
    def batch(self, device: torch.device = CPU) -> Batch:
        """As `Task.batch`."""

    @abstractmethod
    def passes(self, device: torch.device) -> Iterable[Callable[[nn.Module], object]]:
        """Forward passes over training samples, for the estimates of BatchNorm's statistics."""

    @abstractmethod
    def measured(self, model: nn.Module, device: torch.device) -> Iterable[tuple[str, Mapping[str, float]]]:
        """Each split's name and metrics, of a model in evaluation mode."""

    def try_steps(self, gradients: bool, device: torch.device) -> tuple[NetworkLearner, list[str]]:
        """A learner after the first minibatches, and warnings, as from `training_checks.try_steps`."""

        def made(bound: BoundModule, params: Tensor) -> NetworkLearner:
            return self.tried_learner(bound, 0, params, torch.zeros_like(params) if gradients else None)

        learner, doubts = try_steps(self.network, self.name, made, device)
        if gradients:
            for each in learner.optimizers:
                check_groups(each)
        return learner, doubts

    @abstractmethod
    def check_workers(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` if this number of workers, or this seed, does not fit."""

    def check_resume(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` if a learner restored from a checkpoint would take other steps."""
        with preserving_generators():
            if not resumes(self.network, self.tried_learner, device):
                message = f"{self.name} keeps something from one minibatch to the next that no checkpoint has: it is"
                raise ScenarioError.at("backend.checkpoint", f"{message} no parameter and no buffer; register_buffer()")

    def start_with(self, buffers: Mapping[str, Tensor]) -> None:
        """Let new learners start with these buffers, from a warm start."""
        if strange := sorted(buffers.keys() - self.network.buffer_names):
            message = f"is of another model: {self.name} has no buffer {strange[0]}"
            raise ScenarioError.at("warm_start.run", message)
        self._warmed |= {START + name: plain(each).detach().cpu().clone() for name, each in buffers.items()}
        self.network.buffers |= {name.removeprefix(START): each for name, each in self._warmed.items()}

    def start(self) -> Data:
        """The buffers of `start_with` as data entries, for the tasks of other processes."""
        return dict(self._warmed)

    def initial(self) -> Tensor:
        """(P,) the network's own initialisation, drawn from the seed's stream."""
        return self.network.initial()

    @property
    def has_frozen(self) -> bool:
        """Whether parameters are not trained."""
        model = self.network.fresh(CPU).model
        return not all(each.requires_grad for each in model.parameters())

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> NetworkLearner:
        """Bind a replica to `params`."""
        return self.bound(worker, params, gradients, self.batches(worker, params.device))

    def bound(self, worker: int, params: Tensor, gradients: Tensor | None, batches: Batches) -> NetworkLearner:
        """A learner with these minibatches, in the shared module or in one of its own."""
        device = params.device
        self._learners += 1
        if self._learners == 2:
            with preserving_generators():
                self.network.separate = not may_share(self.network, self.tried_learner, device)
        return NetworkLearner(self.network, self.network.module(device), worker, params, gradients, batches)

    def tried_learner(
        self, bound: BoundModule, worker: int, params: Tensor, gradients: Tensor | None = None
    ) -> NetworkLearner:
        """A learner in that module, for a check."""
        return NetworkLearner(self.network, bound, worker, params, gradients, self.batches(worker, params.device))

    def evaluate(
        self, params: Tensor, buffers: Mapping[str, Tensor] | None = None, *, of_replica: bool = False
    ) -> list[tuple[str, str, float]]:
        """The metrics of every split.

        `buffers` are a replica's; None means those that training starts with. With `of_replica` they are used as they
        are; otherwise the statistics of BatchNorm layers in training mode are estimated again.
        """
        device = params.device
        with torch.no_grad(), preserving_generators(), self._examined(device) as bound:
            seed_with(generators_of(device), key(0, "evaluate"))
            self._place(bound, params, buffers, of_replica)
            return [
                (split, metric, value)
                for split, metrics in self.measured(bound.model, device)
                for metric, value in metrics.items()
            ]

    def module(self, params: Tensor, buffers: Mapping[str, Tensor]) -> nn.Module:
        """The module that `evaluate` evaluates for the server's parameters; it has tensors of its own."""
        with torch.no_grad(), preserving_generators():
            bound = self.network.fresh(params.device)
            seed_with(generators_of(params.device), key(0, "evaluate"))
            self._place(bound, params, buffers, of_replica=False)
        for parameter in bound.model.parameters():
            parameter.data = parameter.data.clone()  # each was a view of the vector
            parameter.grad = None
        return bound.model

    def _place(
        self, bound: BoundModule, params: Tensor, buffers: Mapping[str, Tensor] | None, of_replica: bool
    ) -> None:
        """Put parameters and buffers into the module, for evaluation."""
        vector, here = params.clone(), {**self.network.buffers, **(buffers or {})}
        bound.bind(bound.place(vector, here))
        estimates = not (of_replica or self.network.recipe.shares_buffers)
        if estimates and (statistics := estimated(bound, self.passes(params.device))):
            bound.bind(bound.place(vector, here | statistics))
        bound.model.eval()

    @contextlib.contextmanager
    def _examined(self, device: torch.device) -> Iterator[BoundModule]:
        """A module for evaluation only; its layers' modes are restored afterwards."""
        bound = self._evaluating.pop(device, None) or self.network.fresh(device)
        model = bound.model
        modes, before = modes_of(model), python_state(model)
        yield bound
        restore_modes(model, modes)
        if python_state(model) == before:  # otherwise the next evaluation builds a new module
            self._evaluating[device] = bound
