"""The tasks that a scenario can name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from asgd_lab.choices import Mappings, Unread
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario.learned import Learned
from asgd_lab.scenario.networks import Classification, NextTokens, Own
from asgd_lab.task_keys.toys import QuadraticKeys, TimingKeys
from asgd_lab.trust import refusal

__all__ = ["TASKS", "Classification", "Learned", "Quadratic", "Timing"]

if TYPE_CHECKING:
    from asgd_lab.tasks.base import Data, Task


class Quadratic(QuadraticKeys, Learned):
    """A noisy quadratic bowl: loss = 1/2 sum of curvature times coordinate squared; its minimum is at zero."""

    name: Literal["quadratic"]
    """This task's name."""

    @property
    def depends_on_workers(self) -> bool:
        """No: all workers draw from one distribution."""
        return False

    def make(self, seed: int, data: Data, workers: int) -> Task:
        from asgd_lab.tasks.quadratic import QuadraticTask

        return QuadraticTask(self, seed)


class Timing(TimingKeys, Learned):
    """Messages of a stated size and steps of a stated length, without learning, to study time alone."""

    learns = False

    name: Literal["timing"]
    """This task's name."""

    @property
    def depends_on_workers(self) -> bool:
        """No: nothing is computed."""
        return False

    def make(self, seed: int, data: Data, workers: int) -> Task:
        from asgd_lab.tasks.timing import TimingTask

        return TimingTask(self)

    def refuses(self, scenario: Any) -> Iterator[tuple[str, str]]:
        """As in the base class, and a second, different time of a minibatch."""
        yield from super().refuses(scenario)
        step_s = scenario.hardware.compute.step_s
        if self.step_s is not None and step_s not in (None, self.step_s):
            message = f"must be the task's step_s, {self.step_s!r}; got {step_s!r}; give one of the two"
            yield "hardware.compute.step_s", message


class UnreadTask(Learned, Unread):
    """A task whose code may not be imported; its facts have no effect."""

    has_error = True

    def make(self, seed: int, data: Data, workers: int) -> Task:
        """Raise the error that the code is not trusted."""
        raise ScenarioError.at("task.name", refusal([("task.name", self.name)]))


TASKS = Mappings("tasks", Learned, (Quadratic, Classification, Own, NextTokens, Timing), UnreadTask)
