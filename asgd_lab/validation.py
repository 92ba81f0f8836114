"""Validation from Python: a scenario is checked as before a run, and nothing is trained or written."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass

from asgd_lab import arguments
from asgd_lab.request import AnyScenario, Changes, Request
from asgd_lab.trust import Named


@dataclass(frozen=True, slots=True)
class Validation:
    """A valid scenario: a wrong one raises `ScenarioError` instead."""

    source: str
    """The path or the name as it was given; "scenario" for a mapping or an object."""
    names: Sequence[str]
    """The names of the sweep's points, such as algorithm.n_sync=10,workers=2; one empty name without a sweep."""
    warnings: Sequence[str] = ()
    """Allowed but doubtful values: lines `key: sentence`."""
    unchecked: Named = ()  # type: ignore[assignment]
    """Pairs of a dotted key and the code that it names, which was not trusted, and so neither imported nor checked."""

    def __str__(self) -> str:
        how_far = " as far as it was checked" if self.unchecked else ""
        return f"{self.source}: valid{how_far}; {len(self.names)} run{'s' if len(self.names) > 1 else ''}"

    def _repr_html_(self) -> str:
        left = [f"{key}: {name} was not imported, so not checked" for key, name in self.unchecked]
        items = "".join(f"<li>{html.escape(line)}</li>" for line in [*self.warnings, *left])
        return f"<p>{html.escape(str(self))}</p><ul>{items}</ul>"


def validate(scenario: AnyScenario, changes: Changes | None = None) -> Validation:
    """Check a scenario: every point of its sweep, and all that it names; a `ScenarioError` has a line for each fault.

    >>> import asgd_lab
    >>> timing = {
    ...     "name": "timing",
    ...     "task": {"name": "timing", "size_bytes": 1000, "step_s": 0.01},
    ...     "algorithm": {"name": "asgd", "n_sync": 1},
    ...     "budget": {"minibatches": 40},
    ...     "backend": "sim",
    ... }
    >>> print(asgd_lab.validate(timing, {"sweep": {"workers": [1, 2, 80]}}))
    scenario: valid; 3 runs
    >>> asgd_lab.validate(timing, {"workers": 80}).warnings
    ["workers: at most 40 of 80 workers train: a round takes 1 of the budget's 40 minibatches"]
    >>> asgd_lab.validate(timing, {"workers": 0})
    Traceback (most recent call last):
    asgd_lab.errors.ScenarioError: changes["workers"]: must be a whole number, at least 1 and at most 100000; got 0

    Each task is built, with its data, its model and its optimizer; a run that it starts from or takes step times from
    is read; two minibatches are tried, and forgotten. torch is imported only for scenarios that learn something.
    """
    with arguments.named_as_in_python():
        return validated(scenario, changes)


def validated(scenario: object, changes: object) -> Validation:
    """As `validate`, also for `changes` of a command line, whose options errors then name."""
    request = Request.of(scenario, changes)
    unchecked = request.check(partly=True)
    given = str(scenario) if isinstance(scenario, str | os.PathLike) else "scenario"
    return Validation(given, [point.name for point in request.points], request.warnings(), unchecked)
