"""A torch.optim optimizer as the server's rule: the outer optimizer of DiLoCo (Douillard et al. 2023) and its kin.

An update is its gradient: a delta with its sign turned (the pseudo-gradient), or a gradient as it is. The optimizer
steps in place, so that each step begins with copies: of the newest version into the blank slot, and of each state
tensor into the fresh one. A server that dies half-way has torn nothing. P is the length of the flat vector, the only
parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.rules import Context, Kind, Rule, Scaled, State, Workspace

Make = Callable[[list[Tensor]], torch.optim.Optimizer]
_PROBE = 5  # elements


def stepping(make: Make, of: Kind) -> Rule:
    """The optimizer that `make` gives for a list of parameters, fed with deltas or with gradients.

    ScenarioError if it keeps from step to step what is neither a vector (P,) nor a number in a tensor: a server that
    recovers keeps the books without computing, and could not know it.
    """
    kept = _kept(make)
    vectors, numbers = ([key for key, shape in kept.items() if len(shape) == size] for size in (1, 0))
    keys = [*vectors, *numbers]
    dtypes = {key: _probed(make)[key].dtype for key in numbers}
    sign = -1.0 if of == "delta" else 1.0
    parameter = Parameter(torch.empty(0))
    optimizer = make([parameter])

    def step(update: Scaled, context: Context, state: State, fresh: State, workspace: Workspace) -> Scaled:
        vector, alpha = update
        out = workspace.out
        gradient = torch.mul(vector, sign * alpha, out=workspace.scratch())
        parameter.data = out.copy_(context.current)
        parameter.grad = gradient
        optimizer.state.clear()
        if context.version:  # else it makes its own state, at its first step
            for key, new, old in zip(keys, fresh, state, strict=True):
                new.copy_(old)
                optimizer.state[parameter][key] = new if key in vectors else new.to(dtypes[key])
        optimizer.step()
        for key, new in zip(keys, fresh, strict=True):
            value = optimizer.state[parameter][key]
            if value is not new:
                new.copy_(value)
        return out, 1.0

    return Rule(type(optimizer).__name__, of, "parameters", len(vectors), step, scalars=len(numbers))


def _probed(make: Make) -> dict[str, Any]:
    """Its state of a parameter after two steps."""
    parameter = Parameter(torch.zeros(_PROBE))
    optimizer = make([parameter])
    groups = _plain(optimizer)
    for _ in range(2):
        parameter.grad = torch.ones(_PROBE)
        optimizer.step()
    if _plain(optimizer) != groups:
        raise ScenarioError(f"{type(optimizer).__name__} changes its own settings from step to step")
    return dict(optimizer.state[parameter])


def _plain(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def _kept(make: Make) -> dict[str, tuple[int, ...]]:
    kept = {}
    for key, value in _probed(make).items():
        if isinstance(value, Tensor) and tuple(value.shape) in ((), (_PROBE,)):
            kept[key] = tuple(value.shape)
        elif value is not None:
            what = (
                f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise ScenarioError(f"it keeps {what} ({key}), which a server that recovers could not know")
    return kept
