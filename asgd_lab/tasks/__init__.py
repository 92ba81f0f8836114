"""Tasks: `load` reads the data in the process that starts the others; `build` makes the task in each process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgd_lab.tasks import classification, datasets, quadratic, timing
from asgd_lab.tasks.base import Data, Learner, Task
from asgd_lab.tasks.code_imports import untrusted
from asgd_lab.tasks.data_facts import facts_of, load, source
from asgd_lab.tasks.optimizers import optimizer
from asgd_lab.tasks.quadratic import expected_loss
from asgd_lab.trust import Named, refusal

__all__ = [
    "Data",
    "Learner",
    "Named",
    "Task",
    "build",
    "check_rest",
    "classification",
    "datasets",
    "expected_loss",
    "facts_of",
    "load",
    "quadratic",
    "refusal",
    "source",
    "timing",
    "untrusted",
]


def build(config: Any, seed: int, data: Data, workers: int = 1, *, checked: bool = False) -> Task:
    """The task that the scenario states, for so many workers, which may divide its data.

    A `ScenarioError` names the key of a value that does not fit. Two real minibatches are tried, unless another process
    has `checked` the same task.
    """
    task: Task = config.make(seed, data, workers)
    if not checked:
        task.check()
    return task


def check_rest(config: Any, seed: int, left: Named, workers: int = 1, read: Callable[[Any], Data] = load) -> None:
    """Check a task with our own code in place of the code that `left` names; a `ScenarioError` as from `build`.

    `read` reads its data. If they are left out, neither the network nor a minibatch can be tried, only the optimizer.
    """
    keys = {key for key, _ in left}
    if keys & {"task.name", "task.task"}:
        return
    chosen = type(config.optimizer)(name="SGD") if "task.optimizer.name" in keys else config.optimizer
    if "task.dataset" in keys:
        optimizer(chosen)
        return
    plain: dict[str, Any] = {"optimizer": chosen} | ({"schedule": None} if "task.schedule.name" in keys else {})
    if keys - {"task.loss", "task.optimizer.name", "task.schedule.name"}:
        plain |= {"model": "mlp", "model_options": {}, "loss": None}
    elif "task.loss" in keys:
        plain["loss"] = None
    build(config.model_copy(update=plain), seed, read(config), workers)
