"""What is learned: `load` reads the data, in the process that starts the others; `build` makes the task in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks import datasets
from asgd_lab.tasks.base import Data, Learner, Task, near
from asgd_lab.tasks.classification import ClassificationTask
from asgd_lab.tasks.quadratic import QuadraticTask, expected_loss
from asgd_lab.tasks.timing import TimingTask

__all__ = ["Data", "Learner", "Task", "build", "expected_loss", "load"]

_TASKS: dict[str, Callable[[Any, int, Data, int], Task]] = {
    "classification": lambda config, seed, data, workers: ClassificationTask(config, seed, data, workers),
    "quadratic": lambda config, seed, data, workers: QuadraticTask(config, seed),
    "timing": lambda config, seed, data, workers: TimingTask(config),
}


def load(config: Any) -> Data:
    """The data's tensors, none where the task has no data; they are never written to, so processes may share them."""
    return datasets.read(config) if config.name == "classification" else {}


def build(config: Any, seed: int, data: Data, workers: int = 1) -> Task:
    """The task that the scenario states, for so many workers, who may divide its data.

    A `ScenarioError` names the key of whatever does not fit.
    """
    if config.name not in _TASKS:
        message = f"unknown task '{config.name}'{near(config.name, _TASKS)}; allowed: {', '.join(_TASKS)}"
        raise ScenarioError.at("task.name", message)
    return _TASKS[config.name](config, seed, data, workers)
