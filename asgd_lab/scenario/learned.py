"""The base of tasks as a scenario states them: facts, and refusals of keys that contradict them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from asgd_lab.choices import Choice

if TYPE_CHECKING:
    from asgd_lab.tasks.base import Data, Task


class Learned(Choice):
    """A task as a scenario states it. Each subclass has its keys, states facts that differ, and makes the task.

    The mathematics are in `asgd_lab.tasks`, which imports torch: it is imported when the task is made.
    """

    registry = "tasks"
    learns: ClassVar[bool] = True
    """Whether there are parameters, with a loss that can be evaluated."""
    has_error: ClassVar[bool] = False
    """Whether a minibatch has an error, a share of its samples."""
    has_data: ClassVar[bool] = False
    """Whether it has data, which processes share."""
    data_keys: ClassVar[Sequence[str] | None] = None
    """The keys that decide what `load` reads; None: any may."""

    def load(self) -> Data:
        """The data's tensors by name, read-only."""
        return {}

    @abstractmethod
    def make(self, seed: int, data: Data, workers: int) -> Task:
        """The task over the data that `load` has read, for so many workers, which may divide the data."""

    @property
    def depends_on_workers(self) -> bool:
        """Whether the number of workers and the seed decide if it can be trained, as where they divide its data."""
        return True

    def refuses(self, scenario: Any) -> Iterator[tuple[str, str]]:
        """Keys of the scenario that contradict this task: a dotted key, and the reason."""
        if scenario.budget.target_error is not None and not self.has_error:
            message = f"needs task classification, and {self.name} has no error; use minibatches, updates or seconds"
            yield "budget.target_error", message
        for key in ("target", "early_stop"):
            if (limit := getattr(scenario.budget, key)) is not None:
                yield from self._of_limit(scenario, f"budget.{key}", limit)
        if not self.learns:
            yield from self._without_loss(scenario)

    def _of_limit(self, scenario: Any, key: str, limit: Any) -> Iterator[tuple[str, str]]:
        """Refusals of a limit for a metric that this scenario does not have, or has too late."""
        evaluate = scenario.evaluate
        if not self.learns:
            yield key, f"cannot stand beside task {self.name}, which learns nothing; remove it"
        elif limit.in_pushes:
            if limit.metric == "error" and not self.has_error:
                yield f"{key}.metric", f"must be loss with task {self.name}, which has no error"
        elif not scenario.backend.execution.simulated:
            message = f"must be train with backend {scenario.backend.name}, which evaluates after the run; or use sim"
            yield f"{key}.split", message
        elif evaluate is None or "server" not in evaluate.parameters:
            yield key, "needs evaluations of the server's parameters; give evaluate"

    def _without_loss(self, scenario: Any) -> Iterator[tuple[str, str]]:
        backend, faults, execution = scenario.backend, scenario.faults, scenario.backend.execution
        if backend.device == "cuda" and not execution.measured:
            allowed = "cpu or emulated" if execution.has_clock else "cpu"
            yield "backend.device", f"must be {allowed} with task {self.name}, which computes nothing; got cuda"
        if backend.distances and execution.measures_distances:
            yield "backend.distances", f"cannot stand beside task {self.name}; remove it"
        if faults is not None and faults.on_not_finite != "ignore" and not execution.simulated:
            yield "faults.on_not_finite", f"must be ignore with task {self.name}, which has no loss"
        if scenario.evaluate is not None:
            yield "evaluate", f"cannot stand beside task {self.name}, which learns nothing; remove it"
