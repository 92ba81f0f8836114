"""Local optimizers: any class of torch.optim that needs gradients alone, by its own name and keywords."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError, among
from asgd_lab.task_keys.optimizers import Biases, Optimizer
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.code_imports import imported
from asgd_lab.tasks.global_generators import preserving_generators
from asgd_lab.tasks.optimizer_state import stray

MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

_tried: set[str] = set()  # torch's optimizers and keywords without a fault: a study builds a task for every seed

REFUSED = {
    "LBFGS": "evaluates a minibatch several times a step, and a local step here is one gradient",
    "SparseAdam": "steps on sparse gradients, and the vectors here are dense",
}


def _classes() -> dict[str, type[torch.optim.Optimizer]]:
    found = {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value)}
    return {
        name: value
        for name, value in sorted(found.items())
        if issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer and name not in REFUSED
    }


def optimizer(config: Optimizer) -> MakeOptimizer:
    """A factory of the optimizer over given tensors; a `ScenarioError` names a key that torch.optim does not accept."""
    name, classes = config.name, _classes()
    if ":" in name:
        what = "it takes the parameters and its keywords, and returns a torch.optim.Optimizer"
        classes[name] = imported("task.optimizer.name", name, what)  # type: ignore[assignment]
    if name in REFUSED:
        raise ScenarioError.at("task.optimizer.name", f"{name} {REFUSED[name]}; allowed: {', '.join(classes)}")
    if name not in classes:
        raise ScenarioError.at("task.optimizer.name", f"torch.optim has no '{name}'{among(name, classes)}")
    # YAML has lists where torch's signatures have tuples (betas).
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in config.options.items()}
    parameters = list(inspect.signature(classes[name]).parameters.values())
    allowed = [each.name for each in parameters[1:]]
    for key, value in options.items():
        if key not in allowed and parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
            message = f"{name} takes no '{key}'{among(key, allowed)}"
            raise ScenarioError.at(f"task.optimizer.{key}", message)
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ScenarioError.at(f"task.optimizer.{key}", f"must be finite, not {value}")

    def make(tensors: Iterable[Tensor], **chosen: Any) -> torch.optim.Optimizer:
        return classes[name](tensors, **chosen)

    tried = repr((name, sorted(options.items())))
    if ":" in name or tried not in _tried:  # a user's class may have changed since
        with preserving_generators():
            _try_out(name, make, options)
        _tried.add(tried)

    def made(tensors: Iterable[Tensor]) -> torch.optim.Optimizer:
        try:
            return make(tensors, **options)
        except (TypeError, ValueError, RuntimeError) as error:  # for example from Muon, which takes matrices only
            raise ScenarioError.at(
                "task.optimizer.name", f"{name} does not suit this task: {one_line(error)}"
            ) from error

    return made


def grouped(make: MakeOptimizer, biases: Biases | None) -> MakeOptimizer:
    """The factory, with separate rates for biases (parameters of at most one dimension) if the scenario states them."""
    if biases is None:
        return make

    def made(tensors: Iterable[Tensor]) -> torch.optim.Optimizer:
        weights: list[Tensor] = []
        others: list[Tensor] = []
        for tensor in tensors:
            (weights if tensor.dim() > 1 else others).append(tensor)
        groups: Any = [{"params": weights}, {"params": others}]
        optimizer = make(groups)
        group = optimizer.param_groups[1]
        group["lr"] *= biases.lr
        if biases.weight_decay is not None:
            if "weight_decay" not in group:
                raise ScenarioError.at("task.biases.weight_decay", "the optimizer has none; remove it")
            group["weight_decay"] = biases.weight_decay
        return optimizer

    return made


def _try_out(name: str, make: Callable[..., torch.optim.Optimizer], options: dict[str, Any]) -> None:
    """Take a step with a toy: torch checks some values in the constructor, others only in the step."""

    def trouble(**chosen: Any) -> Exception | None:
        toy = torch.zeros(2, 2, requires_grad=True)
        toy.grad = torch.ones(2, 2)
        try:
            made = make([toy], **chosen)
            made.step()
            if not isinstance(made, torch.optim.Optimizer):
                return TypeError(f"it is a {type(made).__name__}, not a torch.optim.Optimizer")
        except (OSError, MemoryError):  # from the machine: no keyword is to blame
            raise
        except Exception as error:
            return error
        return None

    error = trouble(**options)
    if error is None:
        found = stray(lambda tensors: make(tensors, **options))
        if found is not None:
            raise ScenarioError.at("task.optimizer.name", f"{name} cannot be saved and resumed: {found}")
        return
    # The first option that fails alone is to blame; if none does, their combination is.
    for key, value in options.items():
        alone = trouble(**{key: value})
        if alone is not None:
            raise ScenarioError.at(f"task.optimizer.{key}", f"{name} refuses {value!r}: {one_line(alone)}") from alone
    raise ScenarioError.at("task.optimizer", f"{name} refuses these keywords together: {one_line(error)}") from error
