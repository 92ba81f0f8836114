"""Findings of `explain`, from a run's explain.json: effects of causes, and the response to doses of staleness."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files
from asgd_lab.reports.content import SERIES_COLORS, Axis, Plot, Section, Series, Table
from asgd_lab.reports.recorded import Subject

JSON = "explain.json"
MOST_RUNS = 4  # of a sweep
_DIVERGED = "no number"


def has_any(subject: Subject) -> bool:
    """Whether a run of the subject was explained in its own directory."""
    return bool(_explained(subject))


def section(subject: Subject) -> Section:
    """The findings for each explained run."""
    runs = _explained(subject)
    if not runs:
        return Section.unanswered("Nothing here tells: no run was explained. `asgd-lab explain RUN_DIR` answers.")
    found = Section("")
    for name, path in [*runs.items()][:MOST_RUNS]:
        try:
            _add(found, name, atomic_files.read_json(path))
        except (ScenarioError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            found.notes.append(f"{path} cannot be shown: {error}")
    if len(runs) > MOST_RUNS:
        found.notes.append(f"{len(runs)} runs were explained; the first {MOST_RUNS} are shown.")
    if not found.answer:
        return Section("Nothing here tells: no explanation can be read.", is_answered=False, notes=found.notes)
    return found


def _explained(subject: Subject) -> dict[str, Path]:
    """The files of explained runs, by the labels of their points."""
    found = {}
    for group in subject.groups:
        for run in group.paths.values():
            if os.path.isfile(run / JSON):
                label = subject.label(group)
                found[f"{label}, {run.name}" if label in found else label] = run / JSON
    return found


def _add(found: Section, name: str, said: Mapping[str, Any]) -> None:
    where, metric = f" ({name})" if name else "", str(said["metric"])
    checked, first, *others = [str(line) for line in said["lines"]]
    rows = [_row(effect) for effect in said["effects"]]
    headings = ("cause", "learning rate", "effect", "95% interval", "seeds", "interval without 0")
    table = Table(headings, rows, f"Effects in {metric}: positive if the cause raises it{where}")
    answer = f"{name}: {first}" if name else f"{first[0].upper()}{first[1:]}"
    notes = [f"{name}: {line}" if name else line for line in (checked, *others)]
    doses = _doses(said["points"], metric, where)
    found.answer += f"{' ' if found.answer else ''}{answer}."
    found.parts.extend([doses, table] if doses.series else [table])
    found.notes.extend(notes)
    chance = [effect for effect in said["effects"] if effect["cause"] == "placebo" and effect["significant"]]
    if chance:
        found.notes.append(f"Beware{where}: the interval of the placebo excludes 0, as one in twenty does by chance.")


def _row(effect: Mapping[str, Any]) -> tuple[str, ...]:
    estimate, low, high = (_number(effect[key]) for key in ("estimate", "low", "high"))
    rate = "each dose's best" if effect["at_best_rates"] else f"times {effect['rate']:g}"
    mean = f"{estimate:+.4g}" if math.isfinite(estimate) else _DIVERGED
    interval = f"{low:+.4g} to {high:+.4g}" if math.isfinite(low) else "-"
    known = math.isfinite(low)
    return (
        str(effect["cause"]), rate, mean, interval, f"{effect['n']:d}",
        "-" if not known else "yes" if effect["significant"] else "no",
    )  # fmt: skip


def _doses(points: list[Mapping[str, Any]], metric: str, where: str) -> Plot:
    """The metric over the realised mean staleness, a line per rate."""
    by_rate: dict[float, list[tuple[float, ...]]] = {}
    for point in points:
        found = tuple(_number(point[key]) for key in ("staleness", "estimate", "low", "high"))
        if point["cause"] == "staleness" and math.isfinite(found[1]):
            by_rate.setdefault(_number(point["rate"]), []).append(found)
    series = []
    for place, (rate, each) in enumerate(by_rate.items()):
        x, y, low, high = zip(*sorted(each), strict=True)
        name = f"rate times {rate:g}" if len(by_rate) > 1 else ""
        series.append(Series(name, x, y, f"s{place % SERIES_COLORS}", "line", low, high, dashed=place >= SERIES_COLORS))
    title = f"Same order, same minibatches, later fetches{where}"
    return Plot(
        title, Axis("realised mean staleness (versions)", from_zero=True), Axis(metric.replace("_", " ")), series
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
