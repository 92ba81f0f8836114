"""The classification task: the scenario's network, and data that are only indexed (images and classes, or the user's).

BatchNorm's running statistics are not parameters: they stay local to a replica, are never pushed, and no fetch replaces
them. A replica is evaluated with its own. For the server's parameters they are estimated again on a fixed sample of the
training set. If the scenario makes them the server's, they lie in the flat vector, behind the parameters. Layers in
evaluation mode keep the statistics that they have.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, final

import torch
from torch import Tensor

import asgd_lab.tasks.models as models
from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator, key
from asgd_lab.tasks.base import CPU, START, Batch, Data, OptimizerConfig
from asgd_lab.tasks.binding_checks import check_network
from asgd_lab.tasks.bound_module import BoundModule
from asgd_lab.tasks.clipping_and_schedules import adjuster, row_adjuster
from asgd_lab.tasks.code_imports import imported
from asgd_lab.tasks.data_division import divided
from asgd_lab.tasks.device_data import DeviceData
from asgd_lab.tasks.evaluation import estimated, filled, measure
from asgd_lab.tasks.extreme_samples import extreme_samples
from asgd_lab.tasks.feeds import Order, Source, walk
from asgd_lab.tasks.global_generators import generators_of, preserving_generators, seed_with
from asgd_lab.tasks.gradient_pushes import check_groups, step_doubts
from asgd_lab.tasks.network import Network, NetworkLearner, Recipe, plain
from asgd_lab.tasks.objective import Objective, check_classes
from asgd_lab.tasks.optimizers import grouped, optimizer
from asgd_lab.tasks.python_state import modes_of, python_state, restore_modes
from asgd_lab.tasks.sharing_checks import may_share, resumes
from asgd_lab.tasks.training_checks import check_evaluation, doubts, try_steps

_SAMPLE = 2048  # training images on which `evaluate` measures, and estimates BatchNorm's statistics


class ClassificationConfig(Protocol):
    """The scenario's part for this task, without the keys of the data."""

    @property
    def model(self) -> str:
        """See `models.build`."""
        ...

    @property
    def model_options(self) -> Mapping[str, Any]:
        """Keywords for the model's factory."""
        ...

    @property
    def batch_size(self) -> int:
        """B."""
        ...

    @property
    def optimizer(self) -> OptimizerConfig:
        """The local optimizer."""
        ...

    @property
    def dataset_options(self) -> Mapping[str, Any]:
        """Keywords of the data, such as the augmentation of images that are read from files."""
        ...

    @property
    def biases(self) -> Any:
        """See `optimizers.grouped`."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """Stated bytes of a push, for a network that this one stands for; None: the vector's own bytes."""
        ...

    @property
    def loss(self) -> str | None:
        """The user's own loss, as package.module:function; None: cross-entropy."""
        ...

    @property
    def data(self) -> Any:
        """See `data_division.divided`."""
        ...

    @property
    def schedule(self) -> Any:
        """See `clipping_and_schedules.rate_factor`."""
        ...

    @property
    def clip(self) -> Any:
        """By norm or by value."""
        ...

    @property
    def precision(self) -> str:
        """See `precision.casting`."""
        ...

    @property
    def batch_norm(self) -> str:
        """The owner of BatchNorm's statistics: `local` to a replica, or the `server`."""
        ...


@final
class ClassificationTask:
    """The network at its initial parameters, the data, and the factory of optimizers."""

    def __init__(self, config: ClassificationConfig, seed: int, data: Data, workers: int = 1) -> None:
        labels = data["train_labels"]
        if config.batch_size > len(labels):
            message = f"{config.batch_size} is more than the {len(labels)} training samples"
            raise ScenarioError.at("task.batch_size", message)
        self._data = DeviceData(data, config.dataset_options)
        self._seed, self._batch_size, self._samples = seed, config.batch_size, len(labels)
        own = None
        if config.loss is not None:
            own = imported("task.loss", config.loss, "it takes outputs and labels, and returns a mean")
        if labels.is_floating_point() or labels.is_complex():
            if own is None:
                raise ScenarioError.at("task.loss", "is missing: labels that are no classes need a loss of their own")
            classes, num_classes = None, math.prod(labels.shape[1:])
        else:
            seen = data.get("classes", 1 + max(labels.max(), data["test_labels"].max()))
            classes = num_classes = int(seen)
            if own is None:
                for split in ("train", "test"):
                    check_classes(split, data[f"{split}_labels"])
        shape = self._data.source(CPU).shape
        self._objective = Objective(own, labels, classes)
        self._make = grouped(optimizer(config.optimizer), config.biases)
        self._shapes_matter, self._is_fused = config.biases is not None, bool(config.optimizer.options.get("fused"))
        self._adjust_rows = row_adjuster(config.schedule, config.clip)
        self._parts = divided(config.data, labels.numpy(), workers, config.batch_size, seed)
        self._shares_buffers = config.batch_norm == "server"
        factory = functools.partial(models.build, config.model, config.model_options, shape, num_classes)
        adjust = adjuster(config.schedule, config.clip)
        self._precision = config.precision
        recipe = Recipe(factory, self._objective, self._make, adjust, seed, self._shares_buffers, config.precision)
        self.network = Network(recipe)
        self._name, self._warmed = config.model, Data()
        self.start_with({name.removeprefix(START): each for name, each in data.items() if name.startswith(START)})
        self.size = self.network.layout.size
        self.size_bytes = config.size_bytes or 4 * self.size
        self._evaluating: dict[torch.device, BoundModule] = {}
        self._loss_name = config.loss
        self._learners, self.has_error, self._whole = 0, False, False
        self.doubts: list[str] = []

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """A `ScenarioError` if the model does not train as in a plain loop; two real minibatches are tried."""
        order = self._order(0, device)
        feed = self._data.source(device).feed(self._seed, 0, order)
        minibatches = [(feed(step), self._data.labels("train", order(step))) for step in range(2)]
        self.has_error = check_network(self.network, self._name, minibatches)
        ends = (len(self._data.host["test_labels"]), min(self._samples, _SAMPLE))
        shorter = min(size % self._batch_size or self._batch_size for size in ends)

        def made(bound: BoundModule, params: Tensor) -> NetworkLearner:
            return self._learner(bound, 0, params, torch.zeros_like(params) if gradients else None)

        learner, self.doubts = try_steps(self.network, self._name, made, device)
        if gradients:
            check_groups(learner.optimizer)
        tried = [minibatches[0], *self._extremes(device)]
        self._whole = check_evaluation(self.network, self._name, learner, tried, shorter)
        self.doubts += step_doubts(self._make, learner.handles.values()) if gradients else []
        self.doubts += doubts(self.network, self._name, learner, minibatches[0], self._loss_name)

    def _extremes(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """For each split a minibatch of extreme samples, such as those with the greatest index into a table."""
        for split in ("train", "test"):
            index = extreme_samples(self._data.host, split)
            if index is not None:
                index = filled(index, self._batch_size).to(device)
                yield self._data.source(device).views(split, index)[0], self._data.labels(split, index)

    def check_resume(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` if a learner restored from a checkpoint would take other steps."""
        with preserving_generators():
            if not resumes(self.network, self._learner, device):
                message = f"{self._name} keeps something from one minibatch to the next that no checkpoint has: it is"
                raise ScenarioError.at("backend.checkpoint", f"{message} no parameter and no buffer; register_buffer()")

    def start_with(self, buffers: Mapping[str, Tensor]) -> None:
        """Let new learners start with these buffers, from a warm start."""
        if strange := sorted(buffers.keys() - self.network.buffer_names):
            message = f"is of another model: {self._name} has no buffer {strange[0]}"
            raise ScenarioError.at("warm_start.run", message)
        self._warmed |= {START + name: plain(each).detach().cpu().clone() for name, each in buffers.items()}
        self.network.buffers |= {name.removeprefix(START): each for name, each in self._warmed.items()}

    def start(self) -> Data:
        """The buffers of `start_with` as data entries, for the tasks of other processes."""
        return dict(self._warmed)

    def initial(self) -> Tensor:
        """(P,) the network's own initialisation, drawn from the seed's stream."""
        return self.network.initial()

    def learner(
        self, worker: int, params: Tensor, gradients: Tensor | None = None, order: Order | None = None
    ) -> NetworkLearner:
        """Bind a replica to `params`; without an `order` it uses its own permutations."""
        device = params.device
        self._learners += 1
        if self._learners == 2:
            with preserving_generators():
                self.network.separate = not may_share(self.network, self._learner, device)
        return self._learner(self.network.module(device), worker, params, gradients, order)

    def _learner(
        self,
        bound: BoundModule,
        worker: int,
        params: Tensor,
        gradients: Tensor | None = None,
        order: Order | None = None,
    ) -> NetworkLearner:
        labels = self._data.on(params.device)["train_labels"]
        order = order or self._order(worker, params.device)
        feed = self._data.source(params.device).feed(self._seed, worker, order)
        return NetworkLearner(self.network, bound, worker, params, gradients, labels, order, feed)

    def _order(self, worker: int, device: torch.device) -> Order:
        part = self._parts[worker % len(self._parts)] if self._parts is not None and worker >= 0 else None
        return walk(self._seed, worker, self._samples, self._batch_size, device, part)

    def batch(self, device: torch.device = CPU) -> Batch:
        from asgd_lab.tasks.batched import ClassificationBatch
        from asgd_lab.tasks.batching_checks import check_steps  # imported here: few runs need it

        parts = {
            "a loss": self._objective.own is not None,
            "a key biases": self._shapes_matter,
            "a folder of images": self._data.source(CPU).of_files,
            f"precision {self._precision}": self._precision != "float32",
            "a fused optimizer, and computes on a GPU": self._is_fused and device.type == "cuda",
        }
        for what, is_used in parts.items():
            if is_used:
                raise ScenarioError.at("backend.numerics", f"cannot be batched: the task has {what}; use sequential")

        data = self._data.on(device)
        batch = ClassificationBatch(self.network, self._make, data, self._batch_size, self._adjust_rows)
        check_steps(self.network, self._learner, batch, device)
        return batch

    @property
    def device_bytes(self) -> int:
        """Bytes of the inputs and labels that each process puts on its GPU."""
        return self._data.bytes

    def evaluate(
        self, params: Tensor, buffers: Mapping[str, Tensor] | None = None, *, of_replica: bool = False
    ) -> list[tuple[str, str, float]]:
        """Loss, and error if one is defined, on the test set and on a fixed sample of the training set.

        `buffers` are a replica's; None means those that training starts with. With `of_replica` they are used as they
        are; otherwise the statistics of BatchNorm layers in training mode are estimated again.
        """
        source = self._data.source(params.device)
        chosen = generator(0, "evaluate").permutation(self._samples)[:_SAMPLE]
        sample = torch.from_numpy(chosen).to(params.device)
        estimates = not (self._shares_buffers or of_replica)
        with torch.no_grad(), preserving_generators(), self._examined(params.device) as bound:
            seed_with(generators_of(params.device), key(0, "evaluate"))
            vector, buffers = params.clone(), {**self.network.buffers, **(buffers or {})}
            bound.bind(bound.place(vector, buffers))
            if estimates and (statistics := estimated(bound, self._inputs(source, sample))):
                bound.bind(bound.place(vector, buffers | statistics))
            bound.model.eval()
            everything = torch.arange(len(self._data.host["test_labels"]), device=params.device)
            found = []
            for split, index in (("test", everything), ("train", sample)):
                labels = self._data.labels(split, index)
                metrics = measure(
                    bound.model, self._objective, source, split, index, labels, self._batch_size, self._whole
                )
                found += [(split, metric, value) for metric, value in metrics.items()]
            return found

    def _inputs(self, source: Source, sample: Tensor) -> Iterator[Tensor]:
        if self._whole:
            chunks = tuple(filled(chunk, self._batch_size) for chunk in torch.split(sample, self._batch_size))
        else:  # chunks of nearly equal size: BatchNorm cannot take a last one of one sample
            chunks = torch.tensor_split(sample, -(-len(sample) // self._batch_size))
        return (source.views("train", chunk)[0] for chunk in chunks)

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
