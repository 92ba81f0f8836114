"""Loggers: a run's curves in TensorBoard, Weights & Biases, MLflow or a tool of the user's, while it runs.

A scenario is read with this file, so it imports none of these tools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

from asgd_lab.choices import Chosen, Registry
from asgd_lab.configuration import BareName, refuse
from asgd_lab.loggers.base import Logger, UnreadLogger
from asgd_lab.loggers.mlflow_runs import MLflow
from asgd_lab.loggers.tensorboard_files import TensorBoard
from asgd_lab.loggers.wandb_runs import WeightsAndBiases

LOGGERS = Registry("loggers", Logger, (TensorBoard, WeightsAndBiases, MLflow), UnreadLogger)


class Log(Chosen):
    """A logger of the run's curves."""

    registry = "loggers"

    name: Annotated[str, LOGGERS]
    """tensorboard, wandb, mlflow, or a class of your own."""

    @property
    def logger(self) -> type[Logger]:
        """The class that the name chooses, which a scenario does not build."""
        found: type[Logger] = LOGGERS.find(self.name)
        return found


def _different(logs: list[Log]) -> list[Log]:
    refuse(_twice(logs))
    return logs


def _twice(logs: Sequence[Log]) -> Iterator[tuple[str, str]]:
    names = [each.name for each in logs]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield str(index), f"is {name} a second time; remove it"


Logs = Annotated[list[Annotated[Log, BareName()]], AfterValidator(_different)]


def check(logs: Sequence[Any]) -> None:
    """ScenarioError, at its key, if a logger needs a package that is not installed."""
    from asgd_lab.errors import ScenarioError

    for index, each in enumerate(logs):
        try:
            each.logger.check()
        except ScenarioError as error:
            raise ScenarioError.at(f"log.{index}", f"{each.name} {error}") from None
