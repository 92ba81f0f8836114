"""The classification task: a network, and data that are only indexed: images and classes, or a user's."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import final

import torch
from torch import Tensor, nn

import asgd_lab.tasks.models as models
from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator
from asgd_lab.task_keys.networks import ClassificationKeys
from asgd_lab.tasks.base import CPU, Batch, Data
from asgd_lab.tasks.binding_checks import check_network
from asgd_lab.tasks.clipping_and_schedules import adjuster, row_adjuster
from asgd_lab.tasks.code_imports import imported
from asgd_lab.tasks.data_checks import (
    check_loss_of,
    check_outliers,
    check_two_classes,
    extreme_samples,
    first_labelled,
    label_doubts,
    not_finite,
)
from asgd_lab.tasks.data_division import divided
from asgd_lab.tasks.device_data import DeviceData
from asgd_lab.tasks.evaluation import filled, measure
from asgd_lab.tasks.evaluation_checks import Evaluated, check_evaluation, doubts
from asgd_lab.tasks.feeds import Indexed, walk
from asgd_lab.tasks.global_generators import preserving_generators
from asgd_lab.tasks.gradient_pushes import step_doubts
from asgd_lab.tasks.network_task import ALL_OF_TRAINING, NetworkTask
from asgd_lab.tasks.objective import Objective, check_classes
from asgd_lab.tasks.optimizers import grouped, optimizer
from asgd_lab.tasks.recipe import Recipe, trained_by
from asgd_lab.tasks.samples import chunks


@final
class ClassificationTask(NetworkTask):
    """The network at its initial parameters, the data, and the factory of optimizers."""

    def __init__(self, config: ClassificationKeys, seed: int, data: Data, workers: int = 1) -> None:
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
            seen = data.get(
                "classes",
                1 + max(int(each.max()) for split in ("train", "test") for each in chunks(data[f"{split}_labels"])),
            )
            classes = num_classes = int(seen)
            if own is None:
                check_two_classes(num_classes)
                for split in ("train", "test"):
                    check_classes(split, data[f"{split}_labels"])
                    if "classes" not in data:
                        check_outliers(split, data[f"{split}_labels"], labels.numel())
        shape = self._data.source(CPU).shape
        self._objective = Objective(own, labels, classes)
        self._make = grouped(optimizer(config.optimizer), config.biases)
        self._shapes_matter, self._is_fused = config.biases is not None, bool(config.optimizer.options.get("fused"))
        self._adjust_rows = row_adjuster(config.schedule, config.clip)
        self._parts = divided(config.data, labels, workers, config.batch_size, seed, data.get("train_keys"))
        self._precision, self._loss_name, self._whole = config.precision, config.loss, False
        recipe = Recipe(
            functools.partial(models.build, config.model, config.model_options, shape, num_classes),
            self._objective, trained_by(self._make), adjuster(config.schedule, config.clip), seed,
            config.batch_norm == "server", config.precision, config.local,
        )  # fmt: skip
        super().__init__(config.model, recipe, data, config.size_bytes)
        self.device_bytes = self._data.bytes  # inputs and labels
        self._tried_on = CPU  # the device of the last check

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """A `ScenarioError` if the model does not train as in a plain loop; two real minibatches are tried."""
        self._tried_on = device
        batches = self.batches(0, device)
        minibatches = [batches(step) for step in range(2)]
        self.has_error = "error" in check_network(self.network, self.name, minibatches, device)
        ends = (len(self._data.host["test_labels"]), min(self._samples, ALL_OF_TRAINING))
        shorter = min(size % self._batch_size or self._batch_size for size in ends)
        self._check_finite(device)
        learner, self.doubts = self.try_steps(gradients, device)
        if self._objective.own is None and self._objective.classes is not None and "classes" not in self._data.host:
            self.doubts += label_doubts(self._data.host["train_labels"])
        tried = [minibatches[0], *self._extremes(device)]
        self._whole = check_evaluation(self.network, self.name, self._objective, learner, tried, shorter)
        self.doubts += step_doubts(self._make, learner.handles.values()) if gradients else []
        self.doubts += doubts(self.network, self.name, self._objective, learner, minibatches[0], self._loss_name)
        floating = [each for each in self.network.buffers.values() if each.is_floating_point()]
        if self.network.recipe.shares_buffers and not floating:
            self.doubts.append("task.batch_norm: changes nothing: the model has no statistics of its minibatches")
        if self._shapes_matter and not learner.optimizer.param_groups[1]["params"]:
            self.doubts.append("task.biases: changes nothing: no parameter has one dimension")

    def check_workers(self, *, device: torch.device = CPU) -> None:
        """Accept: the data are divided already."""

    @functools.cached_property
    def evaluated(self) -> list[tuple[str, str]]:
        """Split and metric of each row, found on a minibatch of each split: its first sample with a class, repeated."""
        found = []
        with preserving_generators(), torch.no_grad():
            evaluated, params = Evaluated(self.network, self._tried_on), self.network.initial().to(self._tried_on)
            source = self._data.source(self._tried_on)
            for split in ("test", "train"):
                sample = torch.tensor([first_labelled(self._data.host[f"{split}_labels"])], device=self._tried_on)
                index = filled(sample, self._batch_size)
                labels = self._data.labels(split, index)
                of_model = functools.partial(
                    measure, objective=self._objective, source=source, split=split, index=index, labels=labels,
                    batch_size=self._batch_size,
                )  # fmt: skip
                found += [(split, metric) for metric in evaluated(params, self.network.buffers, of_model)]
        return found

    def _extremes(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """For each split a minibatch of extreme samples, such as those with the greatest index into a table."""
        for split in ("train", "test"):
            index = extreme_samples(self._data.host, split)
            if index is not None:
                index = filled(index, self._batch_size).to(device)
                yield self._data.source(device).views(split, index)[0], self._data.labels(split, index)

    def _check_finite(self, device: torch.device) -> None:
        """Try a minibatch of the first sample that is not finite: a model or a loss may know what to do with it."""
        found = [(split, *each) for split in ("train", "test") for each in not_finite(self._data.host, split)]
        with preserving_generators(), torch.no_grad():
            for split, part, sample in found:
                index = filled(torch.tensor([sample]), self._batch_size).to(device)
                inputs, labels = self._data.source(device).views(split, index)[0], self._data.labels(split, index)
                found_loss = functools.partial(_loss, self._objective, inputs, labels)
                start = self.network.initial().to(device)
                loss = Evaluated(self.network, device)(start, self.network.buffers, found_loss)
                check_loss_of(part, sample, loss)

    def batches(self, worker: int, device: torch.device) -> Indexed:
        """A worker's minibatches, in permutations of its samples; of all samples for worker -1, a warm start's."""
        part = self._parts[worker % len(self._parts)] if self._parts is not None and worker >= 0 else None
        order = walk(self._seed, worker, self._samples, self._batch_size, device, part)
        feed = self._data.source(device).feed(self._seed, worker, order)
        return Indexed(order, feed, self._data.on(device)["train_labels"])

    def batch(self, device: torch.device = CPU) -> Batch:
        from asgd_lab.tasks.batched import classification_batch
        from asgd_lab.tasks.batching_checks import check_parts, check_steps  # imported here: few runs need it

        parts = {
            "a loss": self._objective.own is not None,
            "a key biases": self._shapes_matter,
            "a key local": bool(self.network.recipe.local),
            "a folder of images": self._data.source(CPU).of_files,
            f"precision {self._precision}": self._precision != "float32",
            "a fused optimizer, and computes on a GPU": self._is_fused and device.type == "cuda",
        }
        check_parts(parts)
        data = self._data.on(device)
        batch = classification_batch(self.network, self._make, data, self._batch_size, self._adjust_rows)
        check_steps(self.network, self.tried_learner, batch, device)
        return batch

    def measured(self, model: nn.Module, device: torch.device) -> Iterator[tuple[str, dict[str, float]]]:
        """Loss, and error if one is defined, on the test set and on a fixed sample of the training set."""
        everything = torch.arange(len(self._data.host["test_labels"]), device=device)
        source = self._data.source(device)
        for split, index in (("test", everything), ("train", self._sample(device))):
            labels = self._data.labels(split, index)
            yield (
                split,
                measure(model, self._objective, source, split, index, labels, self._batch_size, self._whole),
            )

    def _sample(self, device: torch.device) -> Tensor:
        chosen = generator(0, "evaluate").permutation(self._samples)[:ALL_OF_TRAINING]
        return torch.from_numpy(chosen).to(device)

    def passes(self, device: torch.device) -> Iterator[Callable[[nn.Module], object]]:
        """Forward passes over the sample of the training set."""
        sample = self._sample(device)
        if self._whole:
            chunks = tuple(filled(chunk, self._batch_size) for chunk in torch.split(sample, self._batch_size))
        else:  # chunks of nearly equal size: BatchNorm cannot take a last one of one sample
            chunks = torch.tensor_split(sample, -(-len(sample) // self._batch_size))
        for chunk in chunks:
            yield operator.methodcaller("__call__", self._data.source(device).views("train", chunk)[0])


def _loss(objective: Objective, inputs: Tensor, labels: Tensor, model: nn.Module) -> float:
    """The sum of the losses of a minibatch."""
    return objective.sums(model(inputs), labels).loss
