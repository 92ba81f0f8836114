"""A scenario with its overrides, and its points: checked before anything runs.

torch is imported only for points that learn something, or that name code.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asgd_lab import arguments, live_objects, loggers
from asgd_lab.backends import timing_checks
from asgd_lab.errors import ScenarioError, shown
from asgd_lab.scenario import Document, Point, Scenario, warnings
from asgd_lab.scenario.edits import REMOVED
from asgd_lab.scenario.keys import covers, subscripts
from asgd_lab.scenario.plain_data import Plain
from asgd_lab.scenario.source import MOST_LEVELS
from asgd_lab.trust import Named, named_in_code, search

if TYPE_CHECKING:
    from asgd_lab.point_checks import PointChecks

AnyScenario = str | os.PathLike[str] | Mapping[str, Any] | Scenario
"""The path of a YAML file, the name of a carried scenario, a mapping, or a scenario object."""
Changes = Mapping[str, Any]
"""Values by dotted key, in the place of the scenario's own; `None` removes the key."""


class Assigned(dict[str, Any]):
    """Values by dotted key that a command line states as --set KEY=VALUE; errors about them say so."""


@dataclass(frozen=True, slots=True)
class Request:
    """A scenario's document, the overrides of its keys, and its points."""

    document: Document
    overrides: Mapping[str, Any]
    points: Sequence[Point]
    _doubts: list[str] = field(default_factory=list)  # of the tasks that were checked

    @classmethod
    def of(cls, scenario: object, changes: object = None, seeds: int | None = None) -> Request:
        """The validated points of a scenario with its changes, each with so many seeds; nothing is built yet."""
        document, overrides = document_of(scenario, changes), overrides_of(changes)
        points = document.points(overrides)
        if seeds is not None:
            points = document.replicated(points, arguments.count("seeds", seeds), overrides)
        return cls(document, overrides, points)

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

    def check(self, *, partly: bool = False) -> Named:
        """Check now that all points can be built, so that the last of them does not fail after hours.

        Untrusted code is refused; with `partly`, everything else is checked, and the code left out is returned.
        """
        checks = _Checks()
        untrusted: Named = []
        for number, point in enumerate(self.points):
            try:
                found = checks.check(point.scenario, partly=partly)
            except ScenarioError as error:
                # The first and the last point differ in all swept keys: a fault of both is not the point's.
                last, is_swept = self.points[-1], any(covers(key, error.key) for key in point.values)
                alone = number > 0 or last is point or is_swept
                if not alone and checks.fails_with(error, last.scenario, partly=partly):
                    raise self.document.located(error, self.overrides) from None
                with self.located(point):
                    raise
            else:
                untrusted += [each for each in found if each not in untrusted]
        self._doubts.extend(checks.doubts)
        return untrusted

    def warnings(self) -> list[str]:
        """Warnings on allowed but doubtful values of the points, each once."""
        found = [line for point in self.points for line in warnings.before(point.scenario)]
        return list(dict.fromkeys([*found, *self._doubts, *warnings.alike(self.points)]))


class _Checks:
    """Checks of scenarios; torch is imported at the first that needs it."""

    def __init__(self) -> None:
        self._tasks: PointChecks | None = None

    @property
    def doubts(self) -> Sequence[str]:
        return [] if self._tasks is None else self._tasks.doubts

    def check(self, scenario: Scenario, *, partly: bool) -> Named:
        """A `ScenarioError` if the scenario cannot be run; with `partly`, the untrusted code that was left out."""
        if scenario.backend.execution.checks is not None:
            named_in_code(scenario.backend.execution.checks)(scenario)
        loggers.check(scenario.log)
        if timing_checks.suffices(scenario):
            timing_checks.check(scenario)
            return []
        if self._tasks is None:
            from asgd_lab.point_checks import PointChecks

            self._tasks = PointChecks()
        return self._tasks.check(scenario, partly=partly)

    def fails_with(self, error: ScenarioError, scenario: Scenario, *, partly: bool) -> bool:
        """Whether the scenario has this very fault too."""
        try:
            self.check(scenario, partly=partly)
        except ScenarioError as found:
            return (found.key, found.args) == (error.key, error.args)
        return False


def document_of(scenario: object, changes: object = None) -> Document:
    """The document of a scenario as a caller gives it; `changes` may be `Assigned`."""
    match scenario:
        case Document():
            return scenario
        case Scenario():
            return Document.of(scenario.model_dump())
        case Mapping():
            return Document.of(scenario, Plain("scenario", live_objects.stand_in))
        case str() | os.PathLike():
            path = scenario if isinstance(scenario, str) and scenario else str(arguments.path("scenario", scenario))
            document = Document.read(path, in_python=not isinstance(changes, Assigned))
            search(os.path.dirname(os.path.abspath(document.path)))
            return document
    kind = type(scenario).__qualname__
    raise ScenarioError(f"scenario: must be a path, the name of a scenario, a mapping or a Scenario; got a {kind}")


def overrides_of(changes: object) -> dict[str, Any]:
    """The overrides of a document that a caller's changes stand for."""
    if changes is None:
        return {}
    if isinstance(changes, Assigned):
        return changes
    if not isinstance(changes, Mapping):
        kind = type(changes).__qualname__
        raise ScenarioError(f'changes: must be a mapping of dotted keys, as in {{"workers": 2}}; got a {kind}')
    found = {}
    for key, value in changes.items():
        if not isinstance(key, str) or not all(key.split(".")) or key.count(".") > MOST_LEVELS:
            raise ScenarioError(
                f'changes[{shown(key)}]: must be a dotted key of a scenario, such as "algorithm.n_sync"'
            )
        found[key] = (
            REMOVED if value is None else Plain("changes" + subscripts((key,)), live_objects.stand_in, key).of(value)
        )
    return found
