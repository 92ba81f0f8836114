"""Directories of records as subjects of a report: a run, a sweep with its points, or a comparison with its runs.

The record of a sweep names its points. Other runs in one folder are told apart by their scenarios: a key is swept if
its values differ.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asgd_lab import sweep_records, sweep_tables
from asgd_lab.choices import Unread
from asgd_lab.errors import ScenarioError
from asgd_lab.figures.scalars import runs
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Document, Point, Scenario
from asgd_lab.scenario.presets import leaves
from asgd_lab.scenario.writing import brief
from asgd_lab.sweep_tables import Group, Swept
from asgd_lab.trust import displaying

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 100_000  # of a run's effects that are read
RHYTHM_KEYS = ("n_sync", "n_fetch", "n_push")
WORDS_KEYS = ("name", "description", "figure", "report", "log", "sweep")  # of a scenario, without effect on its run
Kind = Literal["run", "sweep", "comparison"]


class Rhythm(NamedTuple):
    """The local minibatches between two fetches, and between two pushes."""

    n_fetch: int
    n_push: int

    def __str__(self) -> str:
        same = self.n_fetch == self.n_push
        return f"n_sync = {self.n_fetch}" if same else f"n_fetch = {self.n_fetch} with n_push = {self.n_push}"


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
    groups: Sequence[Group]
    scenarios: Mapping[Path, Scenario]  # of the finished runs, by their directories
    failures: Mapping[str, str] = field(default_factory=dict)
    compared: pd.DataFrame | None = None

    @property
    def scenario(self) -> Scenario:
        """The scenario of its first run."""
        return next(iter(self.scenarios.values()))

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
        return sweep_tables.label({key: group.values.get(key) for key in self.keys if key not in without})

    def rhythm(self, group: Group) -> Rhythm | None:
        """The rhythm of a point's runs; None if their algorithm's code was not imported and its keys do not tell."""
        algorithm = self.scenarios[next(iter(group.paths.values()))].algorithm
        if not isinstance(algorithm, Unread):
            return Rhythm(algorithm.n_fetch, algorithm.n_push)
        given = algorithm.model_extra or {}
        fetch, push = (given.get(key, given.get("n_sync")) for key in ("n_fetch", "n_push"))
        return Rhythm(fetch, push) if isinstance(fetch, int) and isinstance(push, int) else None

    def is_whole(self, run: Path) -> bool:
        """Whether a run's tables have the rows of all rounds."""
        return self.scenarios[run].record == "all"

    def summaries(self, group: Group) -> Iterator[dict[str, Any]]:
        """The summaries of a point's runs."""
        return map(read_summary, group.paths.values())


def opened(path: Path) -> Subject:
    """The subject in a directory; a `ScenarioError` if there is no finished run in it."""
    if not path.is_dir():
        raise ScenarioError(f"{path}: {'is not a directory' if path.exists() else 'does not exist'}")
    compared = _comparison(path)
    if compared is None and os.path.isfile(path / sweep_records.FILE):
        return _sweep(path)
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
            summary, scenario = read_summary(run), _scenario(run)
        except ScenarioError as error:
            if kind == "run":
                raise
            failures[name] = str(error)
            continue
        if "updates" not in summary:
            failures[name] = str(summary.get("failure", summary.get("status", "it did not finish")))
            continue
        summaries[name], paths[name], scenarios[name] = summary, run, scenario
    _check_some(path, summaries, failures)
    points = [Point(name, values, scenarios[name]) for name, values in sorted(_differing(scenarios), key=_place)]
    groups = sweep_tables.groups(map(Swept.of, points), summaries, paths)
    return Subject(kind, path, groups, {paths[name]: each for name, each in scenarios.items()}, failures, compared)


def _sweep(path: Path) -> Subject:
    """A sweep by its record, which names the points that have no result too."""
    points = sweep_records.read(path)
    summaries, failures = sweep_records.results(points)
    paths = {point.name: run for point, run in points}
    scenarios = {}
    for name in list(summaries):
        try:
            scenarios[paths[name]] = _scenario(paths[name])
        except ScenarioError as error:
            del summaries[name]
            failures[name] = str(error)
    _check_some(path, summaries, failures)
    groups = sweep_tables.groups([point for point, _ in points], summaries, paths)
    return Subject("sweep", path, groups, scenarios, failures)


def _check_some(path: Path, summaries: Mapping[str, Any], failures: Mapping[str, str]) -> None:
    if not summaries:
        why = next(iter(failures.values()), "no run in it has finished")
        raise ScenarioError(f"{path}: there is nothing to report: {why}")


def _scenario(run: Path) -> Scenario:
    """A run's scenario for its values alone: no code is imported, and live objects may be another process's."""
    with displaying():
        return Document.read(run / "scenario.yaml", in_python=True).scenario()


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


def _differing(scenarios: Mapping[str, Scenario]) -> list[tuple[str, dict[str, Any]]]:
    """By run, the keys whose values are not those of all runs.

    Of keys that always differ together the first is kept, but workers and rhythms always are. The seed stands in for
    no other key: runs are replications only if nothing but it differs. Runs that are alike in all are told apart.
    """
    flat = {name: dict(leaves(scenario.model_dump(mode="json"))) for name, scenario in scenarios.items()}
    known = dict.fromkeys(key for values in flat.values() for key in values)
    keys = sorted((key for key in known if key.partition(".")[0] not in WORDS_KEYS), key=lambda key: not _is_kept(key))
    kept: dict[str, tuple[int, ...]] = {}
    for key in keys:
        texts = [repr(values.get(key)) for values in flat.values()]
        ranks = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        pattern = tuple(ranks[text] for text in texts)
        patterns = [each for other, each in kept.items() if other != "seed"]
        if len(ranks) > 1 and (_is_kept(key) or pattern not in patterns):
            kept[key] = pattern
    found = [(name, {key: _plain(values.get(key)) for key in kept}) for name, values in flat.items()]
    if len({brief(values) for _, values in found}) < len(found):
        return [(name, {**values, "run": name}) for name, values in found]
    return found


def _is_kept(key: str) -> bool:
    return key in ("workers", "seed") or key in [f"algorithm.{each}" for each in RHYTHM_KEYS]


def _place(item: tuple[str, Mapping[str, Any]]) -> list[tuple[bool, float, str]]:
    """The order of points: by the swept values, numbers by size."""
    values = item[1].values()
    is_number = [isinstance(value, int | float) for value in values]
    return [(not is_a, value if is_a else 0.0, str(value)) for is_a, value in zip(is_number, values, strict=True)]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
