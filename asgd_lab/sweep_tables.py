"""The points of a sweep together: summaries of finished ones, groups of replications, and their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asgd_lab.record import atomic_files
from asgd_lab.record.replications import COURSE, OVER_BASE, Estimate, difference, estimate, metrics
from asgd_lab.scenario import Point
from asgd_lab.scenario.writing import brief

if TYPE_CHECKING:
    import pandas as pd


class Swept(NamedTuple):
    """A point of a sweep, as far as tables need it; `sweep.json` has these values."""

    name: str
    values: Mapping[str, Any]
    seed: int
    scenario: str  # its name
    has_target: bool  # whether its budget has one

    @classmethod
    def of(cls, point: Point) -> Swept:
        """The point of a scenario."""
        budget = point.scenario.budget
        has_target = budget.target is not None or budget.target_error is not None
        return cls(point.name, point.values, point.scenario.seed, point.scenario.name, has_target)


@dataclass(frozen=True, slots=True)
class Group:
    """Points that differ in their seed alone: `values` are the other swept values, `runs` the metrics by seed."""

    name: str
    values: dict[str, Any]
    fewest_workers: int = 0  # of the whole sweep, the base of speed-ups; 0 where the number is not swept
    runs: dict[int, dict[str, float]] = field(default_factory=dict)
    paths: dict[int, Path] = field(default_factory=dict)  # of the runs' directories
    partial: set[str] = field(default_factory=set)  # metrics whose mean would be biased, see `_add_target_speedups`

    def means(self) -> dict[str, Estimate]:
        """The estimates of every metric that all its runs have, and of speed-ups and efficiency over those that have
        them: a run whose base has failed has none.
        """
        compared = [metric for metric in OVER_BASE if any(metric in run for run in self.runs.values())]
        known = [*self._common(), *(metric for metric in compared if metric not in self.partial)]
        return {metric: estimate(list(self.metric(metric).values())) for metric in dict.fromkeys(known)}

    def against(self, other: Group) -> dict[str, Estimate]:
        """This group's result metrics minus the other's, paired by seed; {} with fewer than two pairs."""
        common = [metric for metric in self._common() if metric in other._common() and metric not in COURSE]
        differences = {metric: difference(self.metric(metric), other.metric(metric)) for metric in common}
        return {metric: each for metric, each in differences.items() if each is not None and each.n > 1}

    def metric(self, name: str) -> dict[int, float]:
        """The values of one metric by seed."""
        return {seed: numbers[name] for seed, numbers in self.runs.items() if name in numbers}

    def _common(self) -> list[str]:
        first, *others = self.runs.values()
        return [metric for metric in first if all(metric in other for other in others)]


def groups(
    points: Iterable[Swept], summaries: Mapping[str, Mapping[str, Any]], paths: Mapping[str, Path] | None = None
) -> list[Group]:
    """The points with a summary (by name), grouped with their replications, in the order of the sweep.

    `points` are all of the sweep, so that failed ones are known too.
    """
    points = list(points)
    fewest = min((point.values["workers"] for point in points if "workers" in point.values), default=0)
    found: dict[str, Group] = {}
    for point in points:
        if point.name in summaries:
            values = {key: value for key, value in point.values.items() if key != "seed"}
            name = brief(values) or point.scenario
            group = found.setdefault(name, Group(name, values, fewest))
            summary = summaries[point.name]
            if paths is not None:
                group.paths[point.seed] = paths[point.name]
            group.runs[point.seed] = metrics(summary) | _to_target(point, summary)
    if fewest:
        _add_speedups(list(found.values()), fewest)
    return list(found.values())


def _to_target(point: Swept, summary: Mapping[str, Any]) -> dict[str, float]:
    """Whether a run has reached its target, and then the seconds of its clock and the minibatches of all workers.

    Nothing of a run that was recorded before summaries told the limit that ended it.
    """
    if not point.has_target or "ended_by" not in summary:
        return {}
    if summary["ended_by"] not in ("target", "target_error"):
        return {"target_reached": 0.0}
    numbers = {"target_reached": 1.0, "minibatches_to_target": float(summary["minibatches"])}
    return numbers if summary.get("clock") == "effects" else numbers | {"seconds_to_target": summary["makespan_s"]}


def _add_speedups(found: Sequence[Group], fewest: int) -> None:
    """Add the speed-ups and the efficiency of each run, where the number of workers is swept.

    Speed-up is the throughput over that of the run with the fewest workers of the sweep, the same seed, and otherwise
    the same values; efficiency is the speed-up over the ratio of the numbers of workers. A run whose base has failed,
    or whose backend has no clock, has neither.
    """
    series: dict[str, list[Group]] = {}
    for group in found:
        series.setdefault(brief({**group.values, "workers": 0}), []).append(group)
    for alike in series.values():
        base = [group for group in alike if group.values["workers"] == fewest]
        rates = {seed: numbers.get("minibatches_per_s", 0.0) for each in base for seed, numbers in each.runs.items()}
        for group in alike:
            more = group.values["workers"] / fewest
            for seed, numbers in group.runs.items():
                if rates.get(seed, 0.0) > 0 and "minibatches_per_s" in numbers:
                    speedup = numbers["minibatches_per_s"] / rates[seed]
                    numbers |= {"speedup": speedup, "efficiency": speedup / more}
        _add_target_speedups(alike, {seed: numbers for each in base for seed, numbers in each.runs.items()})


def _add_target_speedups(alike: Sequence[Group], base: Mapping[int, Mapping[str, float]]) -> None:
    """Add the seconds to the target of the base over those of each run, paired by seed.

    A pair of which one missed the target has none, and then its group has no mean: that of the other seeds would be
    biased.
    """
    for group in alike:
        for seed, numbers in group.runs.items():
            before, own_s = base.get(seed), numbers.get("seconds_to_target", 0.0)
            if before is None:
                continue
            if own_s > 0 and "seconds_to_target" in before:
                numbers["target_speedup"] = before["seconds_to_target"] / own_s
            else:
                group.partial.add("target_speedup")


def write(found: Sequence[Group], folder: Path) -> list[Path]:
    """Write the means to sweep.csv, and differences of replicated points to the first to sweep-differences.csv."""
    tables = {"sweep.csv": means(found), "sweep-differences.csv": differences(found)}
    written = []
    for name, each in tables.items():
        if len(each):
            atomic_files.write(folder / name, each.to_csv(index=False).encode())
            written.append(folder / name)
    return written


def means(found: Sequence[Group]) -> pd.DataFrame:
    """A row per group and metric: the mean, its 95% interval, and the number of runs."""
    return _table([(group, group.means()) for group in found], "mean")


def differences(found: Sequence[Group]) -> pd.DataFrame:
    """A row per later group and metric of the result: its mean difference to the first group, paired by seed, with its
    95% interval; empty without replications.
    """
    return _table([(group, group.against(found[0])) for group in found[1:]], "difference")


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
