"""The question of workers: speed-up, efficiency, time to a target, and the server's saturation (the knee)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asgd_lab import sweep_tables
from asgd_lab.record.replications import Estimate
from asgd_lab.reports.content import SERIES_COLORS, Axis, Plot, Section, Series
from asgd_lab.reports.recorded import Subject
from asgd_lab.reports.words import listed, number, seconds, share
from asgd_lab.summary_words import crew

if TYPE_CHECKING:
    import pandas as pd

SATURATED = 0.9  # utilisation from which a server is the bottleneck
HALF = 0.5  # of an efficiency, below which a worker is better used elsewhere

Line = list[tuple[int, Mapping[str, Estimate]]]
"""Numbers of workers, each with the estimates of its point."""


def section(subject: Subject) -> Section:
    """The answer of a sweep over workers, or of a comparison."""
    if subject.compared is not None:
        return _compared(subject.compared)
    if "workers" not in subject.keys:
        ran = subject.groups[0].values.get("workers", subject.scenario.workers)
        ask = "--set 'sweep={workers: [1, 2, 4, 8]}'"
        return Section.unanswered(f"Nothing here tells: only {crew(ran)} ran. A sweep over workers answers ({ask}).")
    lines = _lines(subject)
    if not any("speedup" in means for line in lines.values() for _, means in line):
        return Section.unanswered(
            "Nothing here tells: this backend has no clock, or the run with the fewest workers failed."
        )
    found = Section(_answer(lines))
    for line, points in lines.items():
        if (said := _saturation(line, points)) is not None:
            found.notes.append(said)
    fewest = min(count for line in lines.values() for count, _ in line)
    ideal = [float(count) for count in subject.keys["workers"]]
    more = [count / fewest for count in ideal]
    reference = Series("ideal", sorted(ideal), sorted(more), "muted", "reference")
    speedup = _plot(lines, "speedup", "Speed-up", f"speed-up over {crew(fewest)}", [reference])
    found.parts.append(speedup)
    found.parts.append(_plot(lines, "efficiency", "Efficiency: speed-up per worker", "efficiency", percent=True))
    if any("seconds_to_target" in means for line in lines.values() for _, means in line):
        found.parts.append(_plot(lines, "seconds_to_target", "Time to the target", "seconds to the target"))
    return found


def _lines(subject: Subject) -> dict[str, Line]:
    found: dict[str, Line] = {}
    for group in subject.groups:
        found.setdefault(subject.label(group, without=["workers"]), []).append((group.values["workers"], group.means()))
    return {name: sorted(line, key=lambda point: point[0]) for name, line in found.items()}


def _answer(lines: Mapping[str, Line]) -> str:
    rated = [
        (means["minibatches_per_s"].mean, count, line, means)
        for line, points in lines.items()
        for count, means in points
        if "speedup" in means
    ]
    rate, count, line, means = max(rated, key=lambda each: each[0])
    where = f" ({line})" if line else ""
    said = (
        f"Throughput is highest with {crew(count)}{where}: {number(rate)} minibatches/s, "
        f"a speed-up of {number(means['speedup'].mean)}."
    )
    targets = [
        (means["seconds_to_target"].mean, count, line)
        for line, points in lines.items()
        for count, means in points
        if "seconds_to_target" in means
    ]
    if targets:
        best, count, line = min(targets)
        said += f" The target is reached first with {crew(count)}{f' ({line})' if line else ''}: after {seconds(best)}."
    poor = {
        line: min(count for count, means in points if means.get("efficiency", _ONE).mean < HALF)
        for line, points in lines.items()
        if any(means.get("efficiency", _ONE).mean < HALF for _, means in points)
    }
    if not poor:
        return f"{said} Efficiency stays above {share(HALF)}."
    each = [f"{count} ({line})" if line else str(count) for line, count in poor.items()]
    return f"{said} Efficiency falls below {share(HALF)} at {listed(each)} workers."


_ONE = Estimate(1.0, math.nan, 1)


def _saturation(line: str, points: Line) -> str | None:
    """The line's knee, as far as the points show it."""
    busy = [(count, means["server_utilisation"].mean) for count, means in points if "server_utilisation" in means]
    full = [count for count, utilisation in busy if utilisation >= SATURATED]
    where = f"{line}: " if line else ""
    if full:
        before = max((count for count, _ in busy if count < full[0]), default=None)
        knee = (
            "no number of workers here is below the knee"
            if before is None
            else f"the knee lies between {before} and {full[0]}"
        )
        busy_share = f"busy {SATURATED:.0%} of the time or more"
        return f"{where}the server is the bottleneck from {crew(full[0])} on, {busy_share}; {knee}."
    if busy:
        count, most = max(busy, key=lambda each: each[1])
        return f"{where}the server is busy {share(most)} of the time at most (with {crew(count)}): the knee is beyond."
    return None


def _plot(
    lines: Mapping[str, Line], metric: str, title: str, axis: str, more: Sequence[Series] = (), percent: bool = False
) -> Plot:
    series = list(more)
    for place, (name, points) in enumerate(lines.items()):
        known = [(float(count), means[metric]) for count, means in points if metric in means]
        if known:
            series.append(
                Series(
                    name,
                    [count for count, _ in known],
                    [each.mean for _, each in known],
                    f"s{place % SERIES_COLORS}",
                    low=[each.low for _, each in known],
                    high=[each.high for _, each in known],
                    dashed=place >= SERIES_COLORS,
                )
            )
    return Plot(
        title, _workers([x for each in series for x in each.x]), Axis(axis, percent=percent, from_zero=True), series
    )


def _workers(counts: Sequence[float]) -> Axis:
    values = tuple(sorted({*counts}))
    wide = len(values) > 1 and values[-1] / values[0] >= 8
    return Axis("workers", log=wide, values=values if len(values) <= 12 else ())


def _compared(table: pd.DataFrame) -> Section:
    best = table.iloc[int(table["measured_mean"].to_numpy().argmax())]
    answer = (
        f"Measured speed-up is highest with {crew(int(best['workers']))} ({_named(best)}): "
        f"{number(best['measured_mean'])} over one device that only computes, where {number(best['predicted'])} "
        "was predicted."
    )
    found = Section(answer)
    ideal = sorted({*map(float, table["workers"])})
    series = [Series("ideal", ideal, ideal, "muted", "reference")]
    for place, (name, rows) in enumerate(_by_line(table)):
        rows = rows.sort_values("workers")
        counts, color = list(map(float, rows["workers"])), f"s{place % SERIES_COLORS}"
        measured, low, high = (
            list(map(float, rows[column])) for column in ("measured_mean", "measured_low", "measured_high")
        )
        series.append(
            Series(f"{name}, predicted", counts, list(map(float, rows["predicted"])), color, "line", dashed=True)
        )
        series.append(Series(f"{name}, measured", counts, measured, color, "points", low, high))
        full, free = (sorted(rows.loc[rows["saturated"] == is_full, "workers"]) for is_full in (True, False))
        if full:
            knee = f"between {free[-1]} and {full[0]} workers" if free else f"below {full[0]} workers"
            found.notes.append(
                f"{name}: the knee, where the server becomes the bottleneck in any order of events, lies {knee}."
            )
        else:
            found.notes.append(f"{name}: the server is nowhere the bottleneck; the knee is beyond {free[-1]} workers.")
    axis = _workers([float(count) for count in table["workers"]])
    y = Axis("speed-up over a device that only computes", from_zero=True)
    found.parts.append(Plot("Speed-up: predicted and measured", axis, y, series, wide=True, height=380))
    return found


def _by_line(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows that differ in their workers alone, by the other values of their points."""
    several = table["scenario"].nunique() > 1
    others = table["point"].str.replace(r"(^|,)(workers|algorithm\.n_(sync|fetch|push))=\d+(?=,|$)", "", regex=True)
    pushes = table["n_push"] if "n_push" in table else table["n_sync"]
    grouped: Any = table.groupby([table["scenario"], table["n_sync"], pushes, others.str.strip(",")], sort=False)
    found = []
    for (scenario, fetch, push, other), rows in grouped:
        rhythm = f"n_sync={fetch}" if fetch == push else f"n_fetch={fetch},n_push={push}"
        found.append((",".join([rhythm, *([other] if other else [])]), rows))
        if several:
            found[-1] = (f"{scenario} {found[-1][0]}", rows)
    return found


def _named(row: Any) -> str:
    return sweep_tables.label({"scenario": row["scenario"], "n_sync": int(row["n_sync"])})
