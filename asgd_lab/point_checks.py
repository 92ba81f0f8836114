"""Checks of points that need torch: code is imported, tasks are built, and minibatches are tried."""

from __future__ import annotations

from typing import Any

from asgd_lab import choices, tasks
from asgd_lab.backends import inputs, room
from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.run import with_samples
from asgd_lab.backends.settings import settled
from asgd_lab.backends.trial import check_algorithm
from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.costs import check_memory
from asgd_lab.scenario import Scenario
from asgd_lab.trust import Named, refusal


class PointChecks:
    """Checks points one after another; those with the same task share its trial."""

    def __init__(self) -> None:
        self.doubts: list[str] = []
        """Warnings on the tasks that were checked."""
        self._seen: list[tuple[Any, int]] = []  # tasks built already, and their numbers of parameters

    @settled()
    def check(self, scenario: Scenario, *, partly: bool) -> Named:
        """A `ScenarioError` if this point cannot be built. Untrusted code is refused; with `partly`, everything else is
        checked, and the code left out is returned.
        """
        named = (
            scenario.task, scenario.warm_start, scenario.hardware.compute, scenario.hardware.device,
            scenario.algorithm.push, scenario.backend.checkpoint is None, scenario.budget.error_in_pushes is None,
            scenario.backend.device, scenario.backend.deterministic,
        )  # fmt: skip
        known = next((size for other, size in self._seen if other == named), None)
        left = inputs.untrusted(scenario)
        if left and not partly:
            raise ScenarioError.at(left[0][0], refusal(left))
        if not choices.unread(scenario.algorithm):
            self.doubts.extend(check_algorithm(scenario))
        if known is None:
            self._seen.append((named, self._checked(scenario, left)))
        elif not left:
            room.check(scenario, known)
        return left

    def _checked(self, scenario: Scenario, untrusted: Named) -> int:
        """Build a scenario's task, or what of it is trusted; how many parameters it has, if that is known."""
        with_samples(scenario)
        of_task = [(key, name) for key, name in untrusted if key.startswith("task.")]
        if of_task:
            tasks.check_rest(scenario.task, scenario.seed, of_task, scenario.workers)
            return 0
        task = build_task(scenario)
        self.doubts.extend(task.doubts)
        if not untrusted:
            room.check(scenario, task.size)
        check_memory(scenario.hardware, task.size_bytes)
        if scenario.warm_start is not None and scenario.warm_start.run is not None:
            initial_parameters(scenario, task)
        return task.size
