"""A scenario with its overrides, and its points: checked before anything runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asgd_lab import choices, tasks
from asgd_lab.backends import inputs, room
from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.run import check_place, with_samples
from asgd_lab.backends.settings import settled
from asgd_lab.backends.trial import check_algorithm
from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.costs import check_memory
from asgd_lab.scenario import Document, Point, Scenario, warnings
from asgd_lab.scenario.keys import covers


@dataclass(frozen=True, slots=True)
class Request:
    """A scenario's document, the overrides of its keys, and its points."""

    document: Document
    overrides: Mapping[str, Any]
    points: Sequence[Point]
    _doubts: list[str] = field(default_factory=list)  # of the tasks that were checked

    @contextlib.contextmanager
    def located(self, point: Point) -> Iterator[None]:
        """Add file, line and point of the sweep to a ScenarioError."""
        try:
            yield
        except ScenarioError as error:
            if point.name and error.key:
                swept = [f"sweep.{key}" for key in point.values if covers(key, error.key)]
                error = ScenarioError.at((swept or [error.key])[-1], f"{error} (at the sweep's point {point.name})")
            raise self.document.located(error, self.overrides) from None

    @settled()
    def check(self, *, partly: bool = False) -> tasks.Named:
        """Check now that all points can be built, so that the last of them does not fail after hours.

        Untrusted code is refused; with `partly`, everything else is checked, and the code left out is returned.
        """
        seen: list[tuple[Any, int]] = []  # tasks built already, and their numbers of parameters
        untrusted: tasks.Named = []
        for point in self.points:
            scenario = point.scenario
            with self.located(point):
                check_place(scenario)
            named = (
                scenario.task, scenario.warm_start, scenario.hardware.compute, scenario.hardware.device,
                scenario.algorithm.push, scenario.backend.checkpoint is None, scenario.budget.error_in_pushes is None,
                scenario.backend.device, scenario.backend.deterministic,
            )  # fmt: skip
            known = next((size for other, size in seen if other == named), None)
            with self.located(point):
                left = inputs.untrusted(scenario)
                if left and not partly:
                    raise ScenarioError.at(left[0][0], tasks.refusal(left))
                untrusted += [each for each in left if each not in untrusted]
                if not choices.unread(scenario.algorithm):
                    self._doubts.extend(check_algorithm(scenario))
                if known is None:
                    known = self._checked(scenario, left)
                    seen.append((named, known))
                elif not left:
                    room.check(scenario, known)
        return untrusted

    def _checked(self, scenario: Scenario, untrusted: tasks.Named) -> int:
        """Build a scenario's task, or what of it is trusted; how many parameters it has, if that is known."""
        with_samples(scenario)
        of_task = [(key, name) for key, name in untrusted if key.startswith("task.")]
        if of_task:
            tasks.check_rest(scenario.task, scenario.seed, of_task, scenario.workers)
            return 0
        task = build_task(scenario)
        self._doubts.extend(task.doubts)
        if not untrusted:
            room.check(scenario, task.size)
        check_memory(scenario.hardware, task.size_bytes)
        if scenario.warm_start is not None and scenario.warm_start.run is not None:
            initial_parameters(scenario, task)
        return task.size

    def warnings(self) -> list[str]:
        """Warnings on allowed but doubtful values of the points, each once."""
        found = [line for point in self.points for line in warnings.before(point.scenario)]
        return list(dict.fromkeys([*found, *self._doubts, *warnings.alike(self.points)]))
