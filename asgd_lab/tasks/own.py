"""The task of a user's own class: its model, minibatches, loss, optimizers and evaluations, in the learner of all.

The class has these methods; one instance is made in each process.

    model(seed)                          any nn.Module
    batch(worker, workers, seed, step)   any tree of tensors, a pure function of these; or instead
    stream(worker, workers, seed)        an endless iterator of such, with state_dict() and load_state_dict()
    loss(model, batch)                   see `own_losses`
    optimizer(model)                     optional: an optimizer, or a list of some, with their schedulers behind them
    step(model, optimizers, batch)       optional, a whole minibatch: it steps them itself, and returns as loss does
    evaluations()                        optional: pairs of a split's name and an iterable of minibatches

All global generators are seeded before `model`, and before each `loss` or `step`. A warm start's minibatches are those
of worker 0 of 1, with another seed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.streams import key
from asgd_lab.task_keys.networks import OwnKeys
from asgd_lab.task_keys.optimizers import SGD
from asgd_lab.task_keys.text import TextKeys
from asgd_lab.tasks.base import CPU, Batch, Data, one_line
from asgd_lab.tasks.binding_checks import check_network
from asgd_lab.tasks.clipping_and_schedules import adjuster
from asgd_lab.tasks.code_imports import imported
from asgd_lab.tasks.evaluation_checks import Evaluated, ends, hidden_state
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.gradient_pushes import step_doubts
from asgd_lab.tasks.models import check_options, prepared
from asgd_lab.tasks.network import NetworkLearner
from asgd_lab.tasks.network_task import NetworkTask
from asgd_lab.tasks.optimizer_state import Stepper
from asgd_lab.tasks.optimizers import MakeOptimizer, optimizer
from asgd_lab.tasks.own_batches import Called, Stream, check_batches, minibatch
from asgd_lab.tasks.own_checks import (
    METHODS,
    check_columns,
    check_keys,
    check_split,
    check_unchanged,
    first_of_splits,
    left_out,
    methods_of,
    not_finite,
    same_for_two,
    steppers_of,
)
from asgd_lab.tasks.own_losses import Losses, returned
from asgd_lab.tasks.recipe import Batches, Metrics, Recipe, trained_by
from asgd_lab.tasks.torch_settings import preserving_settings
from asgd_lab.tasks.trees import cloned, on

_PASSES = 32  # minibatches on which BatchNorm's statistics are estimated


@final
class OwnTask(NetworkTask):
    """A user's class, and the network that it makes."""

    def __init__(
        self, own: Any, name: str, config: OwnKeys | TextKeys, seed: int, data: Data, workers: int = 1,
        batch: Callable[[NetworkTask, torch.device], Batch] | None = None,
    ) -> None:  # fmt: skip
        """`own` is an instance of the class `name`; SGD is the optimizer if neither it nor the scenario has one.

        `batch` makes the task's batch on a device; None: it has none.
        """
        self._batch = batch
        self._own, self._name, self._seed, self._workers = own, name, seed, workers
        self._has, self._trying = methods_of(name, own), False
        self._evaluated: list[tuple[str, str]] = []
        given = {"optimizer": config.optimizer is not None, "clip": config.clip is not None}
        check_keys(name, self._has, given | {"precision": config.precision != "float32"})
        self._losses = Losses(self._name, self._own.loss) if "loss" in self._has else None
        self._make: MakeOptimizer | None = None
        if "optimizer" not in self._has:
            self._make = optimizer(config.optimizer or SGD)
        recipe = Recipe(
            self._model, self._losses, self._steppers if self._make is None else trained_by(self._make),
            adjuster(config.schedule, config.clip), seed, config.batch_norm == "server", config.precision,
            config.local,
            self._step if "step" in self._has else None,
        )  # fmt: skip
        with self._blamed():
            super().__init__(self._name, recipe, data, config.size_bytes)

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Errors about a model, a loss or an optimizer are about the class, if that has them."""
        keys = ("task.model", "task.loss", *(("task.optimizer",) if self._make is None else ()))
        try:
            yield
        except ScenarioError as error:
            if error.key not in keys:
                raise
            said = str(error) if self._name in str(error) else f"{self._name}: {error}"
            raise ScenarioError.at("task.task", said) from error
        except RunFailed as error:
            raise ScenarioError.at("task.task", str(error)) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            raise ScenarioError.at("task.task", f"{self._name} ends the program: {one_line(error)}") from error

    def _model(self) -> nn.Module:
        try:
            model = self._own.model(self._seed)
        except Exception as error:
            raise ScenarioError.at("task.task", f"{self._name}.model raised {one_line(error)}") from error
        return prepared(f"{self._name}.model", model)

    def _steppers(self, model: nn.Module) -> Sequence[Stepper]:
        try:
            found = self._own.optimizer(model)
        except Exception as error:
            raise ScenarioError.at("task.task", f"{self._name}.optimizer raised {one_line(error)}") from error
        return steppers_of(self._name, found, model, steps_itself="step" in self._has)

    def _step(self, model: nn.Module, steppers: Sequence[Stepper], batch: Any) -> tuple[Tensor, Metrics]:
        method = f"{self._name}.step"
        found = returned(method, self._own.step(model, steppers, batch))
        if self._trying:
            found.check(method)
        return found.total if found.weight is None else found.total / found.weight, found.metrics

    def batches(self, worker: int, device: torch.device) -> Batches:
        """The class's `batch`, or its `stream`."""
        whose = (worker, self._workers, self._seed)
        if worker < 0:  # a warm start
            whose = (0, 1, key(self._seed, "warm start") % 2**31)
        if "stream" in self._has:
            return Stream(functools.partial(self._own.stream, *whose), device)
        return Called(functools.partial(self._own.batch, *whose), device)

    @property
    def evaluated(self) -> Sequence[tuple[str, str]]:
        """Split and metric of each row that `evaluate` returns, known after `check`."""
        return self._evaluated

    def check_workers(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` if a worker's minibatches are no function of its number and the step."""
        with self._blamed():
            check_batches(self._method, functools.partial(self.batches, device=device), self._workers)

    @property
    def _method(self) -> str:
        """The name of the method that makes minibatches."""
        return f"{self._name}.{'stream' if 'stream' in self._has else 'batch'}"

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """A `ScenarioError` if the class does not train as in a plain loop; two real minibatches are tried."""
        if gradients and self.network.recipe.own_step is not None:
            message = f"cannot be gradient: {self._name} has a step of its own; use push: delta"
            raise ScenarioError.at("algorithm.push", message)
        self._trying = True
        try:
            with self._blamed():
                doubts = self._tried(gradients, device)
        finally:
            self._trying = False
        self.doubts = [re.sub("^task.model: ", "task.task: ", line) for line in doubts]

    def _tried(self, gradients: bool, device: torch.device) -> list[str]:
        """Try the class; return warnings."""
        method = self._method
        of_worker = functools.partial(self.batches, device=device)
        check_batches(method, of_worker, self._workers)
        batches = of_worker(0)
        minibatches = [minibatch(method, batches, step) for step in range(2)]
        self.has_error = "error" in check_network(self.network, self.name, minibatches, device)
        try:
            learner, doubts = self.try_steps(gradients, device)
        except ScenarioError:
            check_unchanged(method, minibatches, of_worker(0))  # it would be the reason
            raise
        check_unchanged(method, minibatches, of_worker(0))
        self.most_steps = learner.most_steps
        if torch.equal(learner.params.cpu(), self.initial()):
            doubts.append(f"task.task: {self._name} changes no parameter in two minibatches")
        if self._workers > 1:
            doubts += same_for_two(method, of_worker)
        doubts += left_out(self._name, learner.module, learner.optimizers)
        if gradients and self._make is not None:
            doubts += step_doubts(self._make, learner.handles.values())
        return doubts + self._check_evaluations(learner, device)

    def _check_evaluations(self, learner: NetworkLearner, device: torch.device) -> list[str]:
        """Try the first two minibatches of each split, with the parameters of the start and of the learner."""
        splits = first_of_splits(self._name, self._evaluations, device)
        doubts = []
        if not splits:
            what = ".evaluations yields nothing" if "evaluations" in self._has else " has no evaluations()"
            doubts.append(f"task.task: {self._name}{what}, so nothing is evaluated")
        means: dict[str, list[Mapping[str, float]]] = {split: [] for split in splits}
        for split, first in splits.items():
            with preserving_generators(), torch.no_grad():
                evaluated = Evaluated(self.network, device)
                for params, buffers in ends(self.network, learner):
                    try:
                        means[split].append(evaluated(params, buffers, self._means_of(split, first)))
                    except Exception as error:
                        said = str(error) if isinstance(error, RunFailed) else one_line(error)
                        raise RunFailed(f"{self._name} cannot be evaluated on {split}: {said}") from error
            doubts += hidden_state(self.network, self.name, learner, self._means_of(split, first))
        at_start = {split: found[0] for split, found in means.items()}
        self._evaluated = [(split, metric) for split, found in at_start.items() for metric in found]
        check_columns(self._name, self._evaluated)
        return doubts + list(not_finite(self._name, at_start))

    def _means_of(self, split: str, batches: Iterable[Any]) -> Callable[[nn.Module], Mapping[str, float]]:
        assert self._losses is not None
        losses = self._losses
        return lambda model: losses.means(split, model, map(cloned, batches))

    def _evaluations(self) -> Iterator[tuple[str, Iterable[Any]]]:
        if "evaluations" in self._has:
            for found in self._own.evaluations():
                yield check_split(self._name, found)

    def batch(self, device: torch.device = CPU) -> Batch:
        """The batch that the constructor was given; a class of the user's own has none."""
        if self._batch is not None:
            return self._batch(self, device)
        raise ScenarioError.at("backend.numerics", "cannot be batched: the task is own; use sequential")

    def passes(self, device: torch.device) -> Iterator[Callable[[nn.Module], object]]:
        """Training losses of worker 0's first minibatches."""
        if self._losses is not None:
            batches = self.batches(0, device)
            for step in range(_PASSES):
                yield functools.partial(_pass, self._losses, batches(step))

    def measured(self, model: nn.Module, device: torch.device) -> Iterator[tuple[str, Mapping[str, float]]]:
        """The metrics and the loss of each split, over all its minibatches."""
        for split, batches in self._evaluations():
            yield split, self._means_of(split, (on(device, batch) for batch in batches))(model)


def _pass(losses: Losses, batch: Any, model: nn.Module) -> object:
    return losses.returned(model, batch)


def brought(name: str, options: Mapping[str, Any], seed: int) -> Any:
    """The instance of a user's class package.module:Class; of a live instance a copy, as in other processes."""
    found = imported("task.task", name, METHODS)
    if isinstance(found, nn.Module):
        raise ScenarioError.at("task.task", f"{name} is a module, and no task; {METHODS}")
    if not isinstance(found, type) and hasattr(found, "model"):
        if options:
            raise ScenarioError.at("task.options", f"cannot stand beside {name}, which is made already; remove them")
        try:
            return copy.deepcopy(found)
        except Exception as error:
            raise ScenarioError.at("task.task", f"{name} cannot be copied: {one_line(error)}") from error
    check_options("task.options", name, found, options)
    with preserving_generators(), preserving_settings():
        seed_all(key(seed, "task"))
        try:
            return found(**options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            did = "raised" if isinstance(error, Exception) else "ends the program:"
            raise ScenarioError.at("task.task", f"{name} {did} {one_line(error)}") from error
