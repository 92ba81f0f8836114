"""Checks for pushes that carry gradients: moves that a local optimizer makes without a gradient are lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.global_generators import preserving_generators
from asgd_lab.tasks.optimizers import MakeOptimizer

_LOST = "does not reach the server beside push: gradient, which sends the sum of the gradients"
_NOTHING = {"weight_decay": "0", "maximize": "false"}
_SCALES = (1.0, 100.0)  # of the weights: a bound may lie beyond the initial weights


def check_groups(made: torch.optim.Optimizer) -> None:
    """A `ScenarioError` if the optimizer decays weights or maximises, be it by a default of its class."""
    for group in made.param_groups:
        for key, nothing in _NOTHING.items():
            if group.get(key):
                message = (
                    f"is {group[key]} in {type(made).__name__}, and {_LOST}; set it to {nothing}, or use push: delta"
                )
                raise ScenarioError.at(f"task.optimizer.{key}", message)


def step_doubts(make: MakeOptimizer, weights: Iterable[Tensor]) -> Iterator[str]:
    """A warning if a first step moves these weights, or larger ones, at zero gradients."""
    start = [weight.detach() for weight in weights]
    with preserving_generators():
        for scale in _SCALES:
            tried = [weight.mul(scale).requires_grad_() for weight in start]
            for each in tried:
                each.grad = torch.zeros_like(each)
            made = make(tried)
            before = [each.detach().clone() for each in tried]
            try:
                made.step()
            except Exception:  # the class does not take zero gradients: no conclusion
                return
            # nan, from a division by the gradients' norm, allows no conclusion either.
            if any(bool(((one != other) & one.isfinite()).any()) for one, other in zip(tried, before, strict=True)):
                yield (
                    f"algorithm.push: the step of {type(made).__name__} moves parameters whose gradient is zero, as a "
                    "decay or a bound does; nothing of that reaches the server; use push: delta"
                )
                return
