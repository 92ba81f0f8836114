"""The points of a sweep together: summaries of finished ones, groups of replications, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgd_lab.backends.resuming import how_far
from asgd_lab.backends.run import resolved
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files
from asgd_lab.record.replications import COURSE, Estimate, difference, estimate, metrics
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Point, Scenario
from asgd_lab.scenario.writing import brief

if TYPE_CHECKING:
    import pandas as pd


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
    paths: dict[int, Path] = field(default_factory=dict)  # of the runs' directories

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


def groups(
    points: Iterable[Point], summaries: Mapping[str, Mapping[str, Any]], paths: Mapping[str, Path] | None = None
) -> list[Group]:
    """The points with a summary (by name), grouped with their replications, in the order of the sweep."""
    found: dict[str, Group] = {}
    for point in points:
        if point.name in summaries:
            values = {key: value for key, value in point.values.items() if key != "seed"}
            name = brief(values) or point.scenario.name
            group = found.setdefault(name, Group(name, values))
            summary = summaries[point.name]
            if paths is not None:
                group.paths[point.scenario.seed] = paths[point.name]
            group.runs[point.scenario.seed] = metrics(summary) | _to_target(point.scenario, summary)
    _add_speedups(list(found.values()))
    return list(found.values())


def _to_target(scenario: Scenario, summary: Mapping[str, Any]) -> dict[str, float]:
    """Whether a run has reached its target, and then the seconds of its clock and the minibatches of all workers.

    Nothing of a run that was recorded before summaries told the limit that ended it.
    """
    budget = scenario.budget
    if (budget.target is None and budget.target_error is None) or "ended_by" not in summary:
        return {}
    if summary["ended_by"] not in ("target", "target_error"):
        return {"target_reached": 0.0}
    numbers = {"target_reached": 1.0, "minibatches_to_target": float(summary["minibatches"])}
    return numbers if summary.get("clock") == "effects" else numbers | {"seconds_to_target": summary["makespan_s"]}


def _add_speedups(found: Sequence[Group]) -> None:
    """Add the speed-up and the efficiency of each run, where the number of workers is swept.

    Speed-up is the throughput over that of the run with the fewest workers of all, the same seed, and otherwise the
    same values; efficiency is the speed-up over the ratio of the numbers of workers. A run whose base has failed has
    neither.
    """
    fewest = min((group.values["workers"] for group in found if "workers" in group.values), default=0)
    series: dict[str, list[Group]] = {}
    for group in found:
        if "workers" in group.values:
            series.setdefault(brief({**group.values, "workers": 0}), []).append(group)
    for alike in series.values():
        base = [group for group in alike if group.values["workers"] == fewest]
        rates = {seed: numbers.get("minibatches_per_s", 0.0) for each in base for seed, numbers in each.runs.items()}
        for group in alike:
            more = group.values["workers"] / fewest
            for seed, numbers in group.runs.items():
                if rates.get(seed, 0.0) > 0:
                    speedup = numbers["minibatches_per_s"] / rates[seed]
                    numbers |= {"speedup": speedup, "efficiency": speedup / more}


def write(found: Sequence[Group], folder: Path) -> list[Path]:
    """Write the means to sweep.csv, and differences of replicated points to the first to sweep-differences.csv."""
    tables = {
        "sweep.csv": means(found),
        "sweep-differences.csv": _table([(group, group.against(found[0])) for group in found[1:]], "difference"),
    }
    written = []
    for name, each in tables.items():
        if len(each):
            atomic_files.write(folder / name, each.to_csv(index=False).encode())
            written.append(folder / name)
    return written


def means(found: Sequence[Group]) -> pd.DataFrame:
    """A row per group and metric: the mean, its 95% interval, and the number of runs."""
    return _table([(group, group.means()) for group in found], "mean")


def _table(found: Sequence[tuple[Group, Mapping[str, Estimate]]], what: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [
            {
                **{key: cell(value) for key, value in group.values.items()},
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


def label(values: Mapping[str, Any]) -> str:
    """Swept values as a label: the last part of each key and its value."""
    return brief({key.rpartition(".")[2]: value for key, value in values.items()}).removeprefix("=")


def cell(value: Any) -> Any:
    """A swept value as one cell of a table."""
    return brief({"": value}).removeprefix("=") if isinstance(value, dict | list) else value
