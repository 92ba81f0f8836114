"""The question of n_sync: throughput against the result; points that no other one beats in both time and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asgd_lab import sweep_tables
from asgd_lab.metric_words import higher_is_better
from asgd_lab.record.replications import Estimate
from asgd_lab.reports.content import SERIES_COLORS, Axis, Plot, Section, Series, Table
from asgd_lab.reports.recorded import RHYTHM_KEYS, Rhythm, Subject
from asgd_lab.reports.words import listed, number, seconds, share
from asgd_lab.sweep_tables import Group

ALIKE = 0.01  # relative difference of times that counts as none
Rhythms = Mapping[str, Rhythm]
"""The known rhythms of points, by the names of their groups."""


class Result(NamedTuple):
    """A point's label, its line, its value on the axis, and its mean time and loss."""

    label: str
    line: str
    value: float
    time_s: float
    loss: float


class _Asked(NamedTuple):
    """The points with a known rhythm, the key of the axis, each point's value of it, and each point's line."""

    subject: Subject
    groups: Sequence[Group]
    key: str
    values: Mapping[str, int]
    lines: Mapping[str, str]


def section(subject: Subject) -> Section:
    """The answer of points with several rhythms."""
    found = {group.name: subject.rhythm(group) for group in subject.groups}
    rhythms = {name: rhythm for name, rhythm in found.items() if rhythm is not None}
    unknown = len(found) - len(rhythms)
    if not rhythms:
        said = "the code of the algorithm is not imported here, and its keys do not tell its n_sync"
        return Section.unanswered(f"Nothing here tells: {said}.")
    if len({*rhythms.values()}) == 1:
        ask = "--set 'sweep={algorithm.n_sync: [1, 10, 100]}'"
        said = f"only {next(iter(rhythms.values()))} {'is known of' if unknown else 'ran'}"
        return Section.unanswered(f"Nothing here tells: {said}. A sweep over it answers ({ask}).")
    asked = _asked(subject, [group for group in subject.groups if group.name in rhythms], rhythms)
    answer = _answer(asked)
    if unknown:
        answer.notes.append(f"{unknown} points are left out: their algorithm's code is not imported here.")
    return answer


def _answer(asked: _Asked) -> Section:
    known = {group.name: group.means() for group in asked.groups}
    metrics = {metric for means in known.values() for metric in means if metric.startswith("test_")}
    if any("minibatches_per_s" not in means for means in known.values()):
        return Section.unanswered(
            "Nothing here tells: this backend has no clock, so that synchronisation costs no time."
        )
    metric = min(metrics, key=lambda name: (name != "test_error", name != "test_loss", name), default=None)
    rates = _plot(asked, "minibatches_per_s", "Throughput", "minibatches per second")
    stale = _plot(asked, "staleness_mean", "Mean staleness", "mean staleness (versions)")
    if metric is None:
        best = max(asked.groups, key=lambda group: known[group.name]["minibatches_per_s"].mean)
        rate = known[best.name]["minibatches_per_s"].mean
        said = f"Throughput is highest at {asked.subject.label(best)}: {number(rate)} minibatches/s."
        return Section(f"{said} Nothing was evaluated, so that the price in loss is not known.", parts=[rates, stale])
    return _traded(asked, metric, [rates, stale])


def _asked(subject: Subject, groups: Sequence[Group], rhythms: Rhythms) -> _Asked:
    """The points on the axis n_sync, or on the one of n_fetch and n_push that has more values.

    A line has the values that are no rhythm, and the other one of n_fetch and n_push.
    """
    apart = any(rhythm.n_fetch != rhythm.n_push for rhythm in rhythms.values())
    fetches, pushes = ({*each} for each in zip(*rhythms.values(), strict=True))
    by_fetch = len(fetches) >= len(pushes)
    key = "n_sync" if not apart else "n_fetch" if by_fetch else "n_push"
    others = {
        group.name: {
            each: _without_rhythm(group.values.get(each))
            for each in subject.keys
            if each.rpartition(".")[2] not in RHYTHM_KEYS
        }
        for group in groups
    }
    differing = [each for each in next(iter(others.values())) if len({repr(own[each]) for own in others.values()}) > 1]
    lines, values = {}, {}
    for name, rhythm in rhythms.items():
        told = {each: others[name][each] for each in differing}
        if apart:
            told["n_push" if by_fetch else "n_fetch"] = rhythm.n_push if by_fetch else rhythm.n_fetch
        lines[name] = sweep_tables.label(told)
        values[name] = rhythm.n_fetch if by_fetch else rhythm.n_push
    return _Asked(subject, groups, key, values, lines)


def _without_rhythm(value: Any) -> Any:
    return {key: each for key, each in value.items() if key not in RHYTHM_KEYS} if isinstance(value, dict) else value


def _traded(asked: _Asked, metric: str, plots: Sequence[Plot]) -> Section:
    results = [each for group in asked.groups if (each := _result(asked, group, metric)) is not None]
    words = metric.replace("_", " ")
    if not results:
        return Section(f"No point has a finite final {words}; the throughput is below.", parts=[*plots])
    y = Axis(f"final {words}", percent=metric == "test_error")
    result = _plot(asked, metric, f"Final {words}", y.title, percent=y.percent)
    is_higher = higher_is_better(metric, asked.subject.scenario)
    if is_higher is None:
        said = f"Nothing tells whether a higher {words} is better, so that no point is called the best."
        return Section(said, parts=[result, *plots])
    found = _best(results, metric, is_higher, y, [result, *plots])
    if missing := len(asked.groups) - len(results):
        found.notes.append(f"{missing} of {len(asked.groups)} points have no finite final {words} and are left out.")
    return found


def _best(results: Sequence[Result], metric: str, is_higher: bool, y: Axis, plots: Sequence[Plot]) -> Section:
    words, extreme, sign = metric.replace("_", " "), "highest" if is_higher else "lowest", -1 if is_higher else 1
    best = min(results, key=lambda each: sign * each.loss)
    written = share if metric == "test_error" else number
    times = [each.time_s for each in results]
    if max(times) - min(times) <= ALIKE * max(times):
        same = f"All points had the same time ({seconds(max(times))})"
        answer = f"{same}; the final {words} is {extreme} at {best.label}: {written(best.loss)}."
        return Section(answer, parts=[*plots])
    front = undominated(results, sign)
    labels = [each.label for each in front]
    answer = (
        f"The final {words} is {extreme} at {best.label}: {written(best.loss)} after {seconds(best.time_s)}. "
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
    better = f"{'upper' if is_higher else 'lower'} left is better"
    pareto = Plot(f"Time and result: {better}", Axis(_TIME, log=apart), y, series)
    rows = [(each.label, seconds(each.time_s), written(each.loss)) for each in front]
    table = Table(("point", "time", f"final {words}"), rows, "Points that no other one beats in both")
    return Section(answer, parts=[pareto, table, *plots])


_TIME = "time (s), or time to the target"


def _result(asked: _Asked, group: Group, metric: str) -> Result | None:
    means = group.means()
    if metric not in means or not math.isfinite(means[metric].mean):
        return None
    time, label = means.get("seconds_to_target", means["makespan_s"]), asked.subject.label(group)
    return Result(label, asked.lines[group.name], asked.values[group.name], time.mean, means[metric].mean)


def undominated(results: Sequence[Result], sign: int = 1) -> list[Result]:
    """The results in the order of time, each with a lower loss than all before it (higher with the sign -1)."""
    front: list[Result] = []
    for each in sorted(results, key=lambda one: (one.time_s, sign * one.loss)):
        if not front or sign * each.loss < sign * front[-1].loss:
            front.append(each)
    return front


def _plot(asked: _Asked, metric: str, title: str, axis: str, percent: bool = False) -> Plot:
    lines: dict[str, list[tuple[float, Estimate]]] = {}
    for group in asked.groups:
        mean = group.means().get(metric)
        if mean is not None and math.isfinite(mean.mean):
            lines.setdefault(asked.lines[group.name], []).append((float(asked.values[group.name]), mean))
    series = [_series(name, points, place) for place, (name, points) in enumerate(lines.items())]
    values = tuple(sorted({x for each in series for x in each.x}))
    wide = len(values) > 1 and values[0] > 0 and values[-1] / values[0] >= 8
    x = Axis(f"{asked.key} (minibatches)", log=wide, values=values if len(values) <= 12 else ())
    return Plot(f"{title} over {asked.key}", x, Axis(axis, percent=percent, from_zero=True), series)


def _series(name: str, points: Sequence[tuple[float, Estimate]], place: int) -> Series:
    points = sorted(points, key=lambda point: point[0])
    means = [mean for _, mean in points]
    return Series(
        name,
        [value for value, _ in points],
        [each.mean for each in means],
        f"s{place % SERIES_COLORS}",
        low=[each.low for each in means],
        high=[each.high for each in means],
        dashed=place >= SERIES_COLORS,
    )
