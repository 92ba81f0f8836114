"""Checks of points that need torch: code is imported, tasks are built, and minibatches are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asgd_lab import choices, tasks
from asgd_lab.backends import devices, inputs, room
from asgd_lab.backends.build import (
    build_task,
    check_limits,
    check_schedules,
    evaluated,
    initial_parameters,
    limits_by_evaluation,
)
from asgd_lab.backends.run import with_samples
from asgd_lab.backends.settings import settled
from asgd_lab.backends.sim import numerics
from asgd_lab.backends.trial import check_algorithm
from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.costs import check_memory
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import Data
from asgd_lab.trust import Named, refusal


class _Facts(NamedTuple):
    size: int
    has_error: bool
    evaluated: Sequence[tuple[str, str]]
    most_steps: int | None


@dataclass
class _Tried:
    """A task whose minibatches were tried, and what is known of it since; nothing of a task of untrusted code."""

    named: Any  # the values that the trial depends on
    facts: _Facts | None = None
    divisions: list[tuple[int, int]] = field(default_factory=list)  # numbers of workers, and seeds, that were checked


class PointChecks:
    """Checks points one after another; those with the same task share its trial, and those with the same data read
    them once: after the first only what differs is checked.
    """

    def __init__(self) -> None:
        self.doubts: list[str] = []
        """Warnings on the tasks that were checked."""
        self._tried: list[_Tried] = []
        self._read: tuple[str, Data] = "", {}  # the data read last, and their source

    @settled()
    def check(self, scenario: Scenario, *, partly: bool) -> Named:
        """A `ScenarioError` if this point cannot be built. Untrusted code is refused; with `partly`, everything else is
        checked, and the code left out is returned.
        """
        named = (
            scenario.task, scenario.warm_start, scenario.hardware.compute, scenario.hardware.device,
            scenario.algorithm.push, scenario.backend.checkpoint is None, bool(limits_by_evaluation(scenario)),
            scenario.backend.device, scenario.backend.deterministic,
            scenario.backend.numerics == "batched" and scenario.algorithm.name,
        )  # fmt: skip
        left = inputs.untrusted(scenario)
        if left and not partly:
            raise ScenarioError.at(left[0][0], refusal(left))
        if not choices.unread(scenario.algorithm):
            self.doubts.extend(check_algorithm(scenario))
        tried = next((each for each in self._tried if each.named == named), None)
        division = (scenario.workers, scenario.seed) if scenario.task.depends_on_workers else (0, 0)
        if tried is None:
            tried = _Tried(named)
            tried.facts = self._try(scenario, left)
            self._tried.append(tried)
        else:
            if division not in tried.divisions:
                self._divide(scenario, left)
            if tried.facts is not None:
                facts = tried.facts
                check_limits(scenario, has_error=facts.has_error, evaluated=facts.evaluated)
                if not left:
                    room.check(scenario, facts.size)
        if tried.facts is not None:
            self.doubts.extend(check_schedules(scenario, tried.facts.most_steps))
        tried.divisions.append(division)
        return left

    def _try(self, scenario: Scenario, left: Named) -> _Facts | None:
        """Build a scenario's task, or what of it is trusted, and try it; its facts, if they are known."""
        with_samples(scenario)
        if _of_task(left):
            tasks.check_rest(scenario.task, scenario.seed, _of_task(left), scenario.workers, self._data)
            return None
        task = build_task(scenario, self._data(scenario.task))
        self.doubts.extend(task.doubts)
        if not left:
            room.check(scenario, task.size)
            numerics.check(scenario, task)
        check_memory(scenario.hardware, task.size_bytes)
        if scenario.warm_start is not None and scenario.warm_start.run is not None:
            initial_parameters(scenario, task)
        found = evaluated(task, devices.home(scenario)) if limits_by_evaluation(scenario) else ()
        return _Facts(task.size, task.has_error, found, task.most_steps)

    def _divide(self, scenario: Scenario, left: Named) -> None:
        """Build a task that was tried already for another number of workers, or with another seed."""
        if _of_task(left):
            tasks.check_rest(scenario.task, scenario.seed, _of_task(left), scenario.workers, self._data)
        else:
            task = build_task(scenario, self._data(scenario.task), checked=True)
            task.check_workers(device=devices.home(scenario))

    def _data(self, config: Any) -> Data:
        """A task's data; those of the point before, if they have the same source."""
        here = tasks.source(config)
        if self._read[0] != here:
            self._read = "", {}  # not both in memory
            self._read = here, tasks.load(config)
        return self._read[1]


def _of_task(left: Named) -> Named:
    return [(key, name) for key, name in left if key.startswith("task.")]
