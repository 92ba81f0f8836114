"""In what precision a minibatch's forward pass and loss are computed; parameters, gradients and updates are float32.

Autocast keeps its casts of parameters until the outermost one is left, and knows them by their tensors: it would not
see that a vector has changed under them. So they are dropped before each minibatch, whatever a model has left there of
an autocast of its own. A run in its caller's process is outside of the caller's.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import one_line


def casting(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """What the forward pass and the loss of a minibatch on that device stand in, again and again."""
    if precision == "float32":
        return contextlib.nullcontext()
    try:
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=True)
    except RuntimeError as error:  # of a GPU without it
        raise ScenarioError.at("task.precision", f"{precision} cannot be used here: {one_line(error)}") from error
