"""The numbers of a subject before any question: a run's summary, the means of a sweep, the table of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from asgd_lab import metric_words, summary_words
from asgd_lab.errors import ScenarioError
from asgd_lab.figures.evaluations import common_metric
from asgd_lab.record import tables
from asgd_lab.record.replications import COURSE
from asgd_lab.reports.content import SERIES_COLORS, Axis, Plot, Section, Series, Table
from asgd_lab.reports.recorded import Subject
from asgd_lab.reports.words import number, seconds, share

if TYPE_CHECKING:
    import pandas as pd

MOST_CURVES = SERIES_COLORS
MOST_POINTS = 400  # of a curve


def section(subject: Subject) -> Section:
    """The finished points and their numbers."""
    found = {"run": _run, "sweep": _sweep, "comparison": _comparison}[subject.kind](subject)
    found.parts.extend(_curves(subject, found.notes))
    if subject.failures:
        rows = [(name, why) for name, why in list(subject.failures.items())[:20]]
        found.parts.append(
            Table(("point", "why it has no result"), rows, f"{len(subject.failures)} without a result", is_text=True)
        )
    return found


def _run(subject: Subject) -> Section:
    shown = subject.shown
    assert shown is not None
    summary = shown.summary
    timed = summary.get("clock") != "effects"
    final = [
        f"{name.replace('_', ' ')} {number(value)}" for name, value in summary["final"].items() if value is not None
    ]
    crew = summary_words.crew(summary["workers"])
    clock = f" in {seconds(summary['makespan_s'])} of the run's clock" if timed else ""
    answer = f"{crew[0].upper()}{crew[1:]} took {summary['minibatches']:,} minibatches{clock}."
    if final:
        answer += f" The final parameters have {', '.join(final[:3])}."
    numbers = {name: float("nan") if value is None else value for name, value in summary["final"].items()}
    rows = summary_words.rows({**summary, "final": numbers})
    return Section(answer, parts=[Table(("number", "value"), rows, is_text=True)])


def _sweep(subject: Subject) -> Section:
    means = {subject.label(group) or subject.name: group.means() for group in subject.groups}
    metrics = [name for name in metric_words.ordered(means) if name not in COURSE or name != "target_reached"]
    headings, cells = metric_words.table(means, metrics)
    cells = [tuple(cell.replace("± ", "±\u00a0") for cell in row) for row in cells]  # no line ends after the sign
    keys = subject.keys
    over = ", ".join(f"{key} ({len(values)} values)" for key, values in keys.items())
    many = len(subject.groups)
    answer = f"{many} point{'s' if many != 1 else ''}{f' over {over}' if over else ''} finished."
    if subject.failures:
        answer += f" {len(subject.failures)} did not."
    seeds = max(len(group.runs) for group in subject.groups)
    caption = "Means over the seeds, with 95% intervals" if seeds > 1 else ""
    return Section(answer, parts=[Table(headings, cells, caption)])


def _comparison(subject: Subject) -> Section:
    table = subject.compared
    assert table is not None
    rows = [
        (
            f"{row['scenario']} {row['point']}".strip(),
            f"{row['predicted']:.2f}",
            f"{row['measured_mean']:.2f}",
            f"{row['measured_low']:.2f} to {row['measured_high']:.2f}"
            if row["measured_low"] == row["measured_low"]
            else "-",
            f"{row['error']:+.1%}",
            f"{row['staleness_predicted']:.2f} / {row['staleness_measured']:.2f}",
        )
        for row in table.to_dict("records")
    ]
    headings = ("point", "predicted speed-up", "measured", "95% interval", "error", "staleness predicted / measured")
    error = table["error"].abs()
    answer = (
        f"{len(table)} points were predicted by simulation and then measured with real processes. Predicted speed-up "
        f"errs by {share(float(error.median()))} in the median and by {share(float(error.max()))} at most."
    )
    return Section(answer, parts=[Table(headings, rows, "Speed-up over one device that only computes")])


def _curves(subject: Subject, notes: list[str]) -> list[Plot]:
    """The held-out metric over minibatches and over time, of the server's parameters; a line a point."""
    shown = list(subject.groups)[:MOST_CURVES]
    try:
        evals = [[tables.read(path, "evals") for path in group.paths.values()] for group in shown]
        split, metric = common_metric([rows for each in evals for rows in each])
    except ScenarioError:
        return []
    chosen = [[_server(rows, split, metric) for rows in each] for each in evals]
    if all(len(rows) < 2 for each in chosen for rows in each):
        return []
    if len(subject.groups) > len(shown):
        notes.append(f"Curves are those of the first {len(shown)} of {len(subject.groups)} points.")
    plots = []
    timed = all(path_summary.get("clock") != "effects" for group in shown for path_summary in subject.summaries(group))
    axes = {"minibatches": "minibatches (all workers)"} | ({"time_s": "time (s)"} if timed else {})
    for x, title in axes.items():
        series = [
            _curve(rows, x, subject.label(group) or "server", number)
            for number, (group, rows) in enumerate(zip(shown, chosen, strict=True))
        ]
        series = [each for each in series if len(each.x)]
        positive = [value for each in series for value in each.y if value > 0]
        wide = metric != "error" and bool(positive) and max(positive) > 30 * min(positive)
        y = Axis(f"{split} {metric}", log=wide, percent=metric == "error", from_zero=metric == "error")
        plots.append(Plot(f"{split} {metric} over {title}", Axis(title), y, series))
    return plots


def _server(rows: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    mine = (rows["metric"] == metric) & (rows["split"] == split) & (rows["parameters"] == "server")
    return rows[mine].sort_values("minibatches")


def _curve(runs: Sequence[pd.DataFrame], x: str, name: str, place: int) -> Series:
    """The mean of the nth evaluations of the runs; a run that ended earlier ends all."""
    shortest = min(map(len, runs))
    at, values = (np.mean([rows[name].to_numpy()[:shortest] for rows in runs], axis=0) for name in (x, "value"))
    every = max(1, -(-shortest // MOST_POINTS))
    color = f"s{place % SERIES_COLORS}"
    return Series(name, list(map(float, at[::every])), list(map(float, values[::every])), color)
