"""The question of staleness: histograms of applied pushes by point, and of one run by worker and over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asgd_lab.reports.content import SERIES_COLORS, Axis, Plot, Section, Series, Table
from asgd_lab.reports.recorded import Shown, Subject, effects_of
from asgd_lab.reports.words import number

if TYPE_CHECKING:
    import pandas as pd

MOST_BINS = 60  # of the run's time
_SHOWN_PUSHES = 0.999  # of a histogram: the tail beyond is off the axis


def section(subject: Subject) -> Section:
    """The staleness of pushes."""
    counts = {subject.label(group): _counts(subject.summaries(group)) for group in subject.groups}
    counts = {label: each for label, each in counts.items() if each}
    if not counts:
        return Section.unanswered("No push was applied.")
    means = {label: _mean(each) for label, each in counts.items()}
    low, high = min(means, key=lambda label: means[label]), max(means, key=lambda label: means[label])
    most = max(max(each) for each in counts.values())
    if len(means) == 1:
        answer = f"Pushes are {number(means[low])} versions stale in the mean, and at most {most}."
    else:
        answer = (
            f"The mean staleness goes from {number(means[low])} versions ({low}) to {number(means[high])} ({high}); "
            f"the most stale push was {most} versions behind."
        )
    found = Section(answer)
    shown = subject.shown
    assert shown is not None
    if "staleness_counts" in shown.summary:
        found.notes.append(f"Staleness counts {shown.summary['staleness_counts']}.")
    found.parts.append(_by_point(counts))
    if len(counts) > 1:
        rows = [
            (label, f"{means[label]:.2f}", str(max(each)), f"{sum(each.values()):,}") for label, each in counts.items()
        ]
        found.parts.append(Table(("point", "mean", "largest", "applied pushes"), rows, "Staleness in versions"))
    _add_course(found, shown, subject.is_whole(shown.path))
    return found


def _counts(summaries: Iterable[Mapping[str, Any]]) -> Counter[int]:
    found = Counter[int]()
    for summary in summaries:
        found.update({int(staleness): count for staleness, count in summary["staleness"]["histogram"].items()})
    return found


def _mean(counts: Mapping[int, int]) -> float:
    return sum(staleness * count for staleness, count in counts.items()) / sum(counts.values())


def _by_point(counts: Mapping[str, Mapping[int, int]]) -> Plot:
    shown = dict(list(counts.items())[:SERIES_COLORS])
    if len(shown) == 1:
        ((_, only),) = shown.items()
        at, shares = _shares(only)
        series = [Series("", at, shares, "s0", "bar")]
    else:
        series = [_line(label, each, f"s{place}") for place, (label, each) in enumerate(shown.items())]
    more = "" if len(shown) == len(counts) else f" (the first {len(shown)} of {len(counts)} points)"
    return Plot(f"Applied pushes by their staleness{more}", Axis("staleness (versions)"), _SHARES, series)


_SHARES = Axis("share of pushes", percent=True, from_zero=True)


def _line(label: str, counts: Mapping[int, int], color: str) -> Series:
    at, shares = _shares(counts)
    return Series(label, at, shares, color)


def _shares(counts: Mapping[int, int]) -> tuple[list[float], list[float]]:
    """The shares of the staleness 0, 1, ..., up to one that nearly all pushes do not exceed."""
    total = sum(counts.values())
    found = [counts.get(staleness, 0) / total for staleness in range(max(counts) + 1)]
    kept = int(np.searchsorted(np.cumsum(found), _SHOWN_PUSHES)) + 1
    return [float(staleness) for staleness in range(len(found[:kept]))], found[:kept]


def _add_course(found: Section, shown: Shown, is_whole: bool) -> None:
    """By worker, and over time: of the run that is shown in detail."""
    effects, left_out = effects_of(shown.path)
    pushes = effects[(effects["kind"] == "push") & (effects["staleness"] >= 0) & (effects["worker"] >= 0)]
    if pushes.empty:
        found.notes.append("By worker and over time: nothing tells, since no rows were recorded (record: summary).")
        return
    where = f" ({shown.name})" if shown.name else ""
    grouped: Any = pushes.groupby("worker", sort=True)["staleness"]
    of_workers = {int(worker): Counter(map(int, staleness)) for worker, staleness in grouped}
    if len(of_workers) > 1:
        found.parts.append(_by_worker(of_workers, where))
    if shown.summary.get("clock") != "effects":
        found.parts.append(_over_time(pushes, where))
    if not is_whole:
        found.notes.append("By worker and over time: of the sampled rounds alone (record: sampled).")
    if left_out:
        found.notes.append(f"By worker and over time: of the first {len(effects):,} effects; {left_out:,} follow.")


def _by_worker(counts: Mapping[int, Mapping[int, int]], where: str) -> Plot:
    if len(counts) <= SERIES_COLORS:
        series: Sequence[Series] = [
            _line(f"worker {worker}", each, f"s{place}") for place, (worker, each) in enumerate(counts.items())
        ]
        return Plot(f"Staleness by worker{where}", Axis("staleness (versions)"), _SHARES, series)
    workers = [float(worker) for worker in counts]
    means = [_mean(each) for each in counts.values()]
    highest = [float(max(each)) for each in counts.values()]
    series = [Series("mean", workers, means, "s0", "bar"), Series("largest", workers, highest, "s1", "points")]
    return Plot(f"Staleness by worker{where}", Axis("worker"), Axis("staleness (versions)", from_zero=True), series)


def _over_time(pushes: pd.DataFrame, where: str) -> Plot:
    at, staleness = (pushes[name].to_numpy(np.float64) for name in ("end_s", "staleness"))
    edges = np.linspace(at.min(), max(at.max(), at.min() + 1e-9), min(MOST_BINS, max(2, len(at) // 8)) + 1)
    place = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(place, minlength=len(edges) - 1)
    sums = np.bincount(place, staleness, minlength=len(edges) - 1)
    highest = np.zeros(len(edges) - 1)
    np.maximum.at(highest, place, staleness)
    filled = counts > 0
    middle = ((edges[1:] + edges[:-1]) / 2)[filled]
    mean = sums[filled] / counts[filled]
    series = [
        Series("mean", middle.tolist(), mean.tolist(), "s0", "line"),
        Series("largest", middle.tolist(), highest[filled].tolist(), "s1", "line", dashed=True),
    ]
    return Plot(f"Staleness over time{where}", Axis("time (s)"), Axis("staleness (versions)", from_zero=True), series)
