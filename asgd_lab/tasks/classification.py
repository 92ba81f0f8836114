"""Image classification: a network, data that are only indexed, and the step of a plain PyTorch loop.

The same torch operations run whatever the backend, and the only global state is the default generator (dropout draws
from it), which each minibatch seeds anew.

Running statistics of BatchNorm are not parameters: they stay local to a replica, are never pushed, and no fetch
replaces them. Evaluation, which has parameters only, re-estimates them on a fixed sample of the training set before
it tests. Unless the scenario makes them the server's: then they lie in the flat vector, behind the parameters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator, key
from asgd_lab.tasks import models
from asgd_lab.tasks.adjusting import Adjust, adjusting, adjusting_rows
from asgd_lab.tasks.base import Batch, Data, OptimizerConfig
from asgd_lab.tasks.feeds import Feed, Order, Source, source_of, walk
from asgd_lab.tasks.flat import Layout, bind, floating_buffers
from asgd_lab.tasks.measuring import CHUNK, measure
from asgd_lab.tasks.models import Loss
from asgd_lab.tasks.optimizer_state import load_state, state_of
from asgd_lab.tasks.optimizers import MakeOptimizer, grouped, optimizer
from asgd_lab.tasks.parts import divided
from asgd_lab.tasks.users import imported

_SAMPLE = 2048  # training images on which `evaluate` measures and re-estimates


class ClassificationConfig(Protocol):
    """The part of a scenario that states it, beside the data's."""

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
        """Keywords of the data, such as what is done to images that are read from files."""
        ...

    @property
    def biases(self) -> Any:
        """See `optimizers.grouped`."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """What a push moves in another's place; None: the vector's own bytes."""
        ...

    @property
    def loss(self) -> str | None:
        """The user's own, as package.module:function."""
        ...

    @property
    def data(self) -> Any:
        """See `parts.divided`."""
        ...

    @property
    def schedule(self) -> Any:
        """See `adjusting.factor`."""
        ...

    @property
    def clip(self) -> Any:
        """By norm or by value."""
        ...

    @property
    def batch_norm(self) -> str:
        """Whose BatchNorm's statistics are: local, or the server's."""
        ...


def default_generator(device: torch.device) -> torch.Generator:
    """What dropout draws from on that device."""
    if device.type == "cuda":
        chosen: torch.Generator = torch.cuda.default_generators[device.index or 0]
        return chosen
    return torch.default_generator


@contextlib.contextmanager
def undisturbed(*generators: torch.Generator) -> Iterator[None]:
    """Whatever is drawn inside, the generators come out as they went in."""
    states = [each.get_state() for each in generators]
    try:
        yield
    finally:
        for each, state in zip(generators, states, strict=True):
            each.set_state(state)


@final
class ClassificationLearner:
    """A copy of the model over the views of one vector."""

    def __init__(
        self, model: nn.Module, layout: Layout, params: Tensor, gradients: Tensor | None, labels: Tensor, order: Order,
        feed: Feed, make: MakeOptimizer, stream: tuple[int, int], loss: Loss | None = None,
        adjust: Adjust | None = None,
    ) -> None:  # fmt: skip
        self._layout, self._labels, self.order, self._feed = layout, labels, order, feed
        self._params, self._gradients = params, gradients
        self._model = bind(model, layout.views(params))
        self.parameters = dict(self._model.named_parameters())
        self._weights = [weight for weight in self.parameters.values() if weight.requires_grad]
        views = layout.views(gradients) if gradients is not None else []
        named = zip(self.parameters.items(), views, strict=False)
        self.sums = {name: view for (name, parameter), view in named if parameter.requires_grad}
        self._make = make
        self.optimizer = make(self._weights)
        self._generator = default_generator(params.device)
        self._seed, self.worker = stream
        self._own_loss, self._adjust = loss, adjust
        self._loss: Loss = loss or cross_entropy
        self._has_classes = not self._labels.is_floating_point()
        self.version = 0

    def minibatch(self, step: int) -> tuple[float, float]:
        """Take one local step in place; the mean loss, and the share of wrong answers, before it."""
        labels, inputs = self._labels.index_select(0, self.order(step)), self._feed(step)
        self._generator.manual_seed(key(self._seed, "model", self.worker, step))
        outputs = self._model(inputs)
        loss = self._loss(outputs, labels)
        for weight in self._weights:
            weight.grad = None
        torch.autograd.backward(loss)
        if self._adjust is not None:
            self._adjust(self.optimizer, self._weights, step, self.version)
        if self.sums:
            self._gather()
        self.optimizer.step()
        if not self._has_classes:
            return loss.item(), math.nan
        wrong = outputs.detach().argmax(1).ne(labels).count_nonzero()
        return loss.item(), wrong.item() / len(labels)

    def _gather(self) -> None:
        pairs = [(total, weight.grad) for total, weight in zip(self.sums.values(), self._weights, strict=True)]
        totals = [total for total, gradient in pairs if gradient is not None]
        torch._foreach_add_(totals, [gradient for _, gradient in pairs if gradient is not None])

    def reset_momentum(self) -> None:
        """Forget the local optimizer's state; some classes set theirs up in the constructor, so a new one is made."""
        self.optimizer = self._make(self._weights)

    def state(self) -> dict[str, Tensor]:
        """The local optimizer's, and the model's buffers, such as BatchNorm's statistics."""
        buffers = {f"model.{name}": buffer for name, buffer in self._model.named_buffers()}
        return state_of(self.optimizer) | buffers

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on with them."""
        load_state(self.optimizer, state)
        for name, buffer in self._model.named_buffers():
            buffer.copy_(state[f"model.{name}"])

    def warm_up(self) -> None:
        """Take a step with a copy: what is warmed are kernels, caches and lazy imports of the process."""
        scratch = self._params.clone()
        gradients = None if self._gradients is None else torch.zeros_like(scratch)
        with undisturbed(self._generator):
            ClassificationLearner(
                self._model, self._layout, scratch, gradients, self._labels, self.order, self._feed, self._make,
                (self._seed, self.worker), self._own_loss, self._adjust,
            ).minibatch(0)  # fmt: skip


@final
class ClassificationTask:
    """The network at its initial parameters, the data, and what makes an optimizer."""

    def __init__(self, config: ClassificationConfig, seed: int, data: Data, workers: int = 1) -> None:
        labels = data["train_labels"]
        if config.batch_size > len(labels):
            message = f"{config.batch_size} is more than the {len(labels)} training samples"
            raise ScenarioError.at("task.batch_size", message)
        self._data, self._options = {"cpu": data}, config.dataset_options
        self._sources: dict[str, Source] = {}
        self._seed, self._batch_size = seed, config.batch_size
        self._own_loss: Loss | None = None
        if config.loss is not None:
            self._own_loss = imported("task.loss", config.loss, "it takes outputs and labels, and returns a mean")
        if labels.is_floating_point():
            if self._own_loss is None:
                raise ScenarioError.at("task.loss", "is missing: labels that are no classes need a loss of their own")
            num_classes = math.prod(labels.shape[1:])
        else:
            seen = data.get("classes", 1 + max(labels.max(), data["test_labels"].max()))
            num_classes = int(seen)
        shape = self._source_on(torch.device("cpu")).shape
        self._make = grouped(optimizer(config.optimizer), config.biases)
        self._shapes_matter = config.biases is not None
        self._adjust = adjusting(config.schedule, config.clip)
        self._adjust_rows = adjusting_rows(config.schedule, config.clip)
        self._parts = divided(config.data, labels.numpy(), workers, config.batch_size, seed)
        with undisturbed(torch.default_generator):
            torch.default_generator.manual_seed(key(seed, "initial"))
            model = models.build(
                config.model, config.model_options, shape, num_classes, config.batch_size, self._own_loss, labels
            )
        self._shares_buffers = config.batch_norm == "server"
        buffers = [buffer for _, buffer in floating_buffers(model)] if self._shares_buffers else []
        parameters = [*model.parameters(), *buffers]
        self._layout = Layout.of(parameter.shape for parameter in parameters)
        self.size = self._layout.size
        self.size_bytes = config.size_bytes or 4 * self.size
        self._initial = torch.zeros(self.size)
        views = self._layout.views(self._initial)
        for view, parameter in zip(views, parameters, strict=True):
            view.copy_(parameter.detach())
        self._model = bind(model, views)
        self._make([parameter for parameter in self._model.parameters() if parameter.requires_grad])

    def initial(self) -> Tensor:
        """The network's own initialisation, drawn from the seed's stream."""
        return self._initial.clone()

    def learner(
        self, worker: int, params: Tensor, gradients: Tensor | None = None, order: Order | None = None
    ) -> ClassificationLearner:
        """Bind a replica to `params`; it walks its own permutations unless an order is given."""
        data = self._data_on(params.device)
        samples = len(data["train_labels"])
        part = self._parts[worker] if self._parts is not None and worker >= 0 else None
        order = order or walk(self._seed, worker, samples, self._batch_size, params.device, part)
        feed = self._source_on(params.device).feed(self._seed, worker, order)
        return ClassificationLearner(
            self._model, self._layout, params, gradients, data["train_labels"], order, feed, self._make,
            (self._seed, worker), self._own_loss, self._adjust,
        )  # fmt: skip

    def batch(self) -> Batch:
        """Stacks of replicas, on the CPU."""
        from asgd_lab.tasks.batched import ClassificationBatch  # late: few runs need it

        parts = {
            "loss": self._own_loss is not None,
            "key biases": self._shapes_matter,
            "folder of images": "train_files" in self._data["cpu"],
        }
        for what, is_used in parts.items():
            if is_used:
                raise ScenarioError.at("backend.numerics", f"cannot be batched: the task has a {what}; use sequential")

        return ClassificationBatch(self._model, self._make, self._data["cpu"], self._batch_size, self._adjust_rows)

    def evaluate(self, params: Tensor) -> list[tuple[str, str, float]]:
        """Error and loss on the test set and on a fixed sample of the training set."""
        data, noise = self._data_on(params.device), default_generator(params.device)
        source = self._source_on(params.device)
        model = bind(self._model, self._layout.views(params))
        chosen = generator(0, "evaluate").permutation(len(data["train_labels"]))[:_SAMPLE]
        sample = torch.from_numpy(chosen).to(params.device)
        with torch.no_grad(), undisturbed(noise):
            noise.manual_seed(key(0, "evaluate"))
            if not self._shares_buffers:
                # Chunks of nearly equal size: BatchNorm cannot learn from a last chunk of one image.
                chunks = sample.chunk(-(-len(sample) // CHUNK))
                update_bn((source.views("train", chunk)[0] for chunk in chunks), model)
            model.eval()
            loss = self._own_loss or cross_entropy
            everything = torch.arange(len(data["test_labels"]), device=params.device)
            return [
                (split, metric, value)
                for split, index in (("test", everything), ("train", sample))
                for metric, value in measure(model, loss, source, split, index, data[f"{split}_labels"][index]).items()
            ]

    def _source_on(self, device: torch.device) -> Source:
        name = str(device)
        if name not in self._sources:
            self._sources[name] = source_of(self._data_on(device), self._options, device)
        return self._sources[name]

    def _data_on(self, device: torch.device) -> Data:
        """Moved once a device, however many replicas live there."""
        name = str(device)
        if name not in self._data:
            self._data[name] = {part: tensor.to(device) for part, tensor in self._data["cpu"].items()}
        return self._data[name]
