"""The precision of a minibatch's forward pass and loss; parameters, gradients and updates are float32.

Autocast caches its casts of parameters, by their tensors, until its outermost context ends: it would not see that a
vector has changed under them. So the cache is cleared before each minibatch, including casts by an autocast of the
model's own. A run in its caller's process does not use the caller's autocast.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import one_line


def casting(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A reusable context for the forward pass and the loss of a minibatch on that device."""
    if precision == "float32":
        return contextlib.nullcontext()
    try:
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=True)
    except RuntimeError as error:  # from a GPU without bfloat16
        raise ScenarioError.at("task.precision", f"{precision} cannot be used here: {one_line(error)}") from error
