"""The points of a sweep together: summaries of finished ones, groups of replications, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from asgd_lab.backends.resuming import how_far
from asgd_lab.backends.run import resolved
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files
from asgd_lab.record.replications import COURSE, Estimate, difference, estimate, metrics
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Point
from asgd_lab.scenario.writing import brief


def recorded(point: Point, path: Path) -> dict[str, Any] | None:
    """The summary of this very run if it is finished; ScenarioError if another run or file is in its place."""
    if how_far(path, resolved(point.scenario)) != "done":
        return None
    summary = read_summary(path)
    final = {name: math.nan if value is None else value for name, value in summary["final"].items()}
    return {**summary, "final": final}


def check_folder(folder: Path) -> None:
    """ScenarioError if the folder to resume a sweep in holds a single run."""
    if (folder / "manifest.json").exists():
        raise ScenarioError(f"--resume: {folder} holds a single run, not a sweep; choose another --out")


@dataclass(frozen=True, slots=True)
class Group:
    """Points that differ in their seed alone: `values` are the other swept values, `runs` the metrics by seed."""

    name: str
    values: dict[str, Any]
    runs: dict[int, dict[str, float]] = field(default_factory=dict)

    def means(self) -> dict[str, Estimate]:
        """The estimates of every metric that all its runs have."""
        return {metric: estimate(list(self.metric(metric).values())) for metric in self._common()}

    def against(self, other: Group) -> dict[str, Estimate]:
        """This group's result metrics minus the other's, paired by seed; {} with fewer than two pairs."""
        common = [metric for metric in self._common() if metric in other._common() and metric not in COURSE]
        differences = {metric: difference(self.metric(metric), other.metric(metric)) for metric in common}
        return {metric: each for metric, each in differences.items() if each is not None and each.n > 1}

    def metric(self, name: str) -> dict[int, float]:
        """The values of one metric by seed."""
        return {seed: numbers[name] for seed, numbers in self.runs.items()}

    def _common(self) -> list[str]:
        first, *others = self.runs.values()
        return [metric for metric in first if all(metric in other for other in others)]


def groups(points: Iterable[Point], summaries: Mapping[str, Mapping[str, Any]]) -> list[Group]:
    """The points with a summary (by name), grouped with their replications, in the order of the sweep."""
    found: dict[str, Group] = {}
    for point in points:
        if point.name in summaries:
            values = {key: value for key, value in point.values.items() if key != "seed"}
            name = brief(values) or point.scenario.name
            group = found.setdefault(name, Group(name, values))
            group.runs[point.scenario.seed] = metrics(summaries[point.name])
    return list(found.values())


def write(found: Sequence[Group], folder: Path) -> list[Path]:
    """Write the means to sweep.csv, and differences of replicated points to the first to sweep-differences.csv."""
    tables = {
        "sweep.csv": _table([(group, group.means()) for group in found], "mean"),
        "sweep-differences.csv": _table([(group, group.against(found[0])) for group in found[1:]], "difference"),
    }
    written = []
    for name, table in tables.items():
        if len(table):
            atomic_files.write(folder / name, table.to_csv(index=False).encode())
            written.append(folder / name)
    return written


def _table(found: Sequence[tuple[Group, Mapping[str, Estimate]]], what: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **{key: _cell(value) for key, value in group.values.items()},
                "metric": metric,
                what: each.mean,
                "low": each.low,
                "high": each.high,
                "n": each.n,
            }
            for group, estimates in found
            for metric, each in estimates.items()
        ]
    )


def _cell(value: Any) -> Any:
    return brief({"": value}).removeprefix("=") if isinstance(value, dict | list) else value
