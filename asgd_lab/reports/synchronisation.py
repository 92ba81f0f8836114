"""The question of n_sync: throughput against the result; points that no other one beats in both time and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asgd_lab.reports.content import SERIES_COLORS, Axis, Plot, Section, Series, Table
from asgd_lab.reports.recorded import Subject
from asgd_lab.reports.words import listed, number, seconds, share
from asgd_lab.sweep_tables import Group, cell

KEYS = ("n_sync", "n_fetch", "n_push")
ALIKE = 0.01  # relative difference of times that counts as none


class Result(NamedTuple):
    """A point's label, its line, its value on the axis, and its mean time and loss."""

    label: str
    line: str
    value: float
    time_s: float
    loss: float


def section(subject: Subject) -> Section:
    """The answer of a sweep over n_sync, or over n_fetch or n_push."""
    swept = [key for key in subject.keys if key.rpartition(".")[2] in KEYS]
    if not swept:
        algorithm = subject.scenario.algorithm
        ask = "--set 'sweep={algorithm.n_sync: [1, 10, 100]}'"
        return Section.unanswered(
            f"Nothing here tells: only n_sync = {algorithm.n_fetch} ran. A sweep over it answers ({ask})."
        )
    key = max(swept, key=lambda each: len(subject.keys[each]))
    known = {group.name: group.means() for group in subject.groups}
    metrics = {metric for means in known.values() for metric in means if metric.startswith("test_")}
    if any("minibatches_per_s" not in means for means in known.values()):
        return Section.unanswered(
            "Nothing here tells: this backend has no clock, so that synchronisation costs no time."
        )
    metric = min(metrics, key=lambda name: (name != "test_error", name != "test_loss", name), default=None)
    rates = _plot(subject, key, "minibatches_per_s", "Throughput", "minibatches per second")
    stale = _plot(subject, key, "staleness_mean", "Mean staleness", "mean staleness (versions)")
    if metric is None:
        best = max(subject.groups, key=lambda group: known[group.name]["minibatches_per_s"].mean)
        rate = known[best.name]["minibatches_per_s"].mean
        said = f"Throughput is highest at {subject.label(best)}: {number(rate)} minibatches/s."
        return Section(f"{said} Nothing was evaluated, so that the price in loss is not known.", parts=[rates, stale])
    return _traded(subject, key, metric, [rates, stale])


def _traded(subject: Subject, key: str, metric: str, plots: Sequence[Plot]) -> Section:
    results = [each for group in subject.groups if (each := _result(subject, group, key, metric)) is not None]
    words = metric.replace("_", " ")
    lower = "lowest" if not metric.endswith("accuracy") else "highest"
    sign = 1 if lower == "lowest" else -1
    best = min(results, key=lambda each: sign * each.loss)
    written = share if metric == "test_error" else number
    times = [each.time_s for each in results]
    y = Axis(f"final {words}", percent=metric == "test_error")
    result = _plot(subject, key, metric, f"Final {words}", y.title, percent=y.percent)
    if max(times) - min(times) <= ALIKE * max(times):
        same = f"All points had the same time ({seconds(max(times))})"
        answer = f"{same}; the final {words} is {lower} at {best.label}: {written(best.loss)}."
        return Section(answer, parts=[result, *plots])
    front = undominated(results, sign)
    labels = [each.label for each in front]
    answer = (
        f"The final {words} is {lower} at {best.label}: {written(best.loss)} after {seconds(best.time_s)}. "
        f"{len(front)} of {len(results)} points are beaten by no other one in both time and {words}: {listed(labels)}."
    )
    series = [
        Series(
            "no other is better in both",
            [each.time_s for each in front],
            [each.loss for each in front],
            "muted",
            "reference",
        )
    ]
    for place, line in enumerate(dict.fromkeys(each.line for each in results)):
        mine = [each for each in results if each.line == line]
        series.append(
            Series(
                line or "points",
                [each.time_s for each in mine],
                [each.loss for each in mine],
                f"s{place % SERIES_COLORS}",
                "points",
                notes=[f"{each.label}: {seconds(each.time_s)}, {words} {written(each.loss)}" for each in mine],
            )
        )
    apart = max(times) > 30 * min(times) > 0
    pareto = Plot(
        "Time and result: lower left is better" if sign == 1 else "Time and result", Axis(_TIME, log=apart), y, series
    )
    rows = [(each.label, seconds(each.time_s), written(each.loss)) for each in front]
    table = Table(("point", "time", f"final {words}"), rows, "Points that no other one beats in both")
    return Section(answer, parts=[pareto, table, result, *plots])


_TIME = "time (s), or time to the target"


def _result(subject: Subject, group: Group, key: str, metric: str) -> Result | None:
    means = group.means()
    if metric not in means or math.isnan(means[metric].mean):
        return None
    time = means.get("seconds_to_target", means["makespan_s"])
    label, line = subject.label(group), subject.label(group, without=[key])
    return Result(label, line, float(group.values[key]), time.mean, means[metric].mean)


def undominated(results: Sequence[Result], sign: int = 1) -> list[Result]:
    """The results in the order of time, each with a lower loss than all before it (higher with the sign -1)."""
    front: list[Result] = []
    for each in sorted(results, key=lambda one: (one.time_s, sign * one.loss)):
        if not front or sign * each.loss < sign * front[-1].loss:
            front.append(each)
    return front


def _plot(subject: Subject, key: str, metric: str, title: str, axis: str, percent: bool = False) -> Plot:
    lines: dict[str, list[Group]] = {}
    for group in subject.groups:
        if metric in group.means():
            lines.setdefault(subject.label(group, without=[key]), []).append(group)
    series = [_series(name, groups, key, metric, place) for place, (name, groups) in enumerate(lines.items())]
    values = tuple(sorted({x for each in series for x in each.x}))
    wide = len(values) > 1 and values[0] > 0 and values[-1] / values[0] >= 8
    x = Axis(f"{key.rpartition('.')[2]} (minibatches)", log=wide, values=values if len(values) <= 12 else ())
    return Plot(f"{title} over {key.rpartition('.')[2]}", x, Axis(axis, percent=percent, from_zero=True), series)


def _series(name: str, groups: Sequence[Group], key: str, metric: str, place: int) -> Series:
    found: Mapping[float, Group] = dict(sorted((float(cell(group.values[key])), group) for group in groups))
    means = [group.means()[metric] for group in found.values()]
    color = f"s{place % SERIES_COLORS}"
    low, high = [each.low for each in means], [each.high for each in means]
    return Series(
        name, list(found), [each.mean for each in means], color, low=low, high=high, dashed=place >= SERIES_COLORS
    )
