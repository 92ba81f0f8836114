"""Directories of records as subjects of a report: a run, a sweep with its points, or a comparison with its runs.

The points of a sweep are found again from the scenarios of its runs: a swept key is one whose values differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asgd_lab import sweep_tables
from asgd_lab.errors import ScenarioError
from asgd_lab.figures.scalars import runs
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Document, Point, Scenario
from asgd_lab.scenario.presets import leaves
from asgd_lab.sweep_tables import Group, Swept

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 100_000  # of a run's effects that are read
Kind = Literal["run", "sweep", "comparison"]


class Shown(NamedTuple):
    """The run whose course is shown in detail."""

    name: str
    path: Path
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """One directory. `groups` are its finished points; of a comparison, those that were measured."""

    kind: Kind
    path: Path
    scenario: Scenario
    groups: Sequence[Group]
    failures: Mapping[str, str] = field(default_factory=dict)
    compared: pd.DataFrame | None = None

    @property
    def name(self) -> str:
        """The name of its scenario, or of its first run's."""
        return self.scenario.name

    @property
    def keys(self) -> dict[str, list[Any]]:
        """The keys with several values among the finished points, and these values in their order."""
        found: dict[str, list[Any]] = {}
        for key in dict.fromkeys(key for group in self.groups for key in group.values):
            values = [sweep_tables.cell(group.values.get(key)) for group in self.groups]
            if len(distinct := list(dict.fromkeys(values))) > 1:
                found[key] = distinct
        return found

    @property
    def shown(self) -> Shown | None:
        """The first run of the point with the most workers, the last of several."""
        by_workers = sorted(self.groups, key=lambda group: group.values.get("workers", 0))
        if not by_workers:
            return None
        group = by_workers[-1]
        path = next(iter(group.paths.values()))
        return Shown(self.label(group), path, read_summary(path))

    def label(self, group: Group, without: Sequence[str] = ()) -> str:
        """The point's values of the keys that differ, as a label; "" if there are none."""
        return sweep_tables.label({key: group.values[key] for key in self.keys if key not in without})

    def summaries(self, group: Group) -> Iterator[dict[str, Any]]:
        """The summaries of a point's runs."""
        return map(read_summary, group.paths.values())


def opened(path: Path) -> Subject:
    """The subject in a directory; a `ScenarioError` if there is no finished run in it."""
    if not path.is_dir():
        raise ScenarioError(f"{path}: {'is not a directory' if path.exists() else 'does not exist'}")
    compared = _comparison(path)
    if compared is not None:
        found = [run for folder in sorted(path.glob("*/measured")) for run in runs(folder)]
    else:
        found = list(runs(path))
    if not found:
        raise ScenarioError(f"{path}: holds no run; name the directory of a run, a sweep or a comparison")
    kind: Kind = "comparison" if compared is not None else "run" if found == [path] else "sweep"
    summaries, paths, failures, scenarios = {}, {}, {}, {}
    for run in found:
        name = str(run.relative_to(path)) if run != path else ""
        try:
            summary = read_summary(run)
            scenarios[name] = Document.read(run / "scenario.yaml", in_python=True).scenario()
        except ScenarioError as error:
            if kind == "run":
                raise
            failures[name] = str(error)
            continue
        if "updates" not in summary:
            failures[name] = str(summary.get("failure", summary.get("status", "it did not finish")))
            continue
        summaries[name], paths[name] = summary, run
    if not summaries:
        why = next(iter(failures.values()), "no run in it has finished")
        raise ScenarioError(f"{path}: there is nothing to report: {why}")
    differing = _differing({name: scenarios[name] for name in summaries})
    points = [Point(name, values, scenarios[name]) for name, values in sorted(differing.items(), key=_place)]
    groups = sweep_tables.groups(map(Swept.of, points), summaries, paths)
    return Subject(kind, path, scenarios[next(iter(summaries))], groups, failures, compared)


def effects_of(path: Path) -> tuple[pd.DataFrame, int]:
    """The first rows of a run's effects, and how many were left out."""
    return tables.first(path, "effects", MOST_ROWS)


def _comparison(path: Path) -> pd.DataFrame | None:
    if not (path / "compare.parquet").is_file():
        return None
    from asgd_lab.comparisons import Comparison

    try:
        return Comparison.open(path).frame
    except Exception as error:  # no library states which errors unknown bytes may raise
        raise ScenarioError(f"{path / 'compare.parquet'}: is damaged: {error}") from error


def _differing(scenarios: Mapping[str, Scenario]) -> dict[str, dict[str, Any]]:
    """By run, the keys whose values are not those of all runs; of keys that always differ together, the first."""
    flat = {name: dict(leaves(scenario.model_dump(mode="json"))) for name, scenario in scenarios.items()}
    kept: dict[tuple[int, ...], str] = {}
    for key in dict.fromkeys(key for values in flat.values() for key in values):
        if key in ("name", "description", "figure"):
            continue
        texts = [repr(values.get(key)) for values in flat.values()]
        ranks = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        if len(ranks) > 1:
            pattern = tuple(ranks[text] for text in texts)
            if key == "seed" or pattern not in kept:
                kept[pattern] = key
    return {name: {key: _plain(values.get(key)) for key in kept.values()} for name, values in flat.items()}


def _place(item: tuple[str, Mapping[str, Any]]) -> list[tuple[bool, float, str]]:
    """The order of points: by the swept values, numbers by size."""
    values = item[1].values()
    is_number = [isinstance(value, int | float) for value in values]
    return [(not is_a, value if is_a else 0.0, str(value)) for is_a, value in zip(is_number, values, strict=True)]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
