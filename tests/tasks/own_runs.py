"""Runs of task `own` with a class of the tests, and the plain loop over the same class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from asgd_lab.scenario import Scenario
from asgd_lab.streams import key
from asgd_lab.tasks.global_generators import seed_all

SEED, STEPS = 5, 9
ADAM = {"name": "AdamW", "lr": 0.01}
ASGD = {"name": "asgd", "n_sync": 3}


def stated(kind: type[Any], backend: Any = "inline", **parts: Any) -> Scenario:
    """A run of one worker that pushes once, at the end, unless said otherwise."""
    task = {"name": "own", "task": f"{kind.__module__}:{kind.__name__}"}
    if getattr(kind, "optimizer", None) is None:
        task["optimizer"] = ADAM
    return scenario_of(task | parts.pop("task", {}), backend, **parts)


def scenario_of(task: dict[str, Any], backend: Any = "inline", **parts: Any) -> Scenario:
    """The same of any task."""
    return Scenario.model_validate({
        "name": "own", "seed": SEED, "task": task, "algorithm": {"name": "sgd", "n_sync": STEPS},
        "budget": {"minibatches": STEPS}, "backend": backend, "hardware": {"compute": {"step_s": 0.001}}, **parts,
    })  # fmt: skip


def plain(kind: type[Any]) -> tuple[list[Tensor], nn.Module]:
    """The parameters before, and the model after, a loop that knows nothing of the lab but its seeds."""
    own = kind()
    seed_all(key(SEED, "initial"))
    model: nn.Module = own.model(SEED)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    steppers = own.optimizer(model) if getattr(own, "optimizer", None) else [torch.optim.AdamW(trained, lr=0.01)]
    stream = own.stream(0, 1, SEED) if getattr(own, "stream", None) else None
    for step in range(STEPS):
        batch = own.batch(0, 1, SEED, step) if stream is None else next(stream)
        seed_all(key(SEED, "model", 0, step))
        if getattr(own, "step", None):
            own.step(model, steppers, batch)
            continue
        for each in steppers:
            if isinstance(each, torch.optim.Optimizer):
                each.zero_grad()
        found = own.loss(model, batch)
        has_metrics = isinstance(found, tuple) and isinstance(found[1], dict)
        loss = found[0] if has_metrics else found
        (loss[0] / loss[1] if isinstance(loss, tuple) else loss).backward()
        for each in steppers:
            each.step()
    return before, model
