"""The command `explain`: its progress, a table of the doses, and the findings."""

from __future__ import annotations

import math
from pathlib import Path

from asgd_lab.app import display, progress_display
from asgd_lab.app.terminal_tables import Columns
from asgd_lab.counterfactual.explanation import Explanation
from asgd_lab.counterfactual.settings import Settings
from asgd_lab.counterfactual.study import explain as study
from asgd_lab.errors import ScenarioError


def explain(run_dir: Path, settings: Settings, out: Path | None) -> None:
    """Explain the run in `run_dir`, show it, and write its files."""
    into = out or run_dir
    console = display.console()
    with progress_display.bars(console, live=display.is_live(console)) as shown:
        bar = shown.add_task("events", total=None)
        found = study(run_dir, settings, lambda done, total: shown.update(bar, completed=done, total=total), into=into)
    console.print(_table(found))
    for line in found.lines:
        display.say(console, line)
    for path in found.write(into):
        display.say(console, f"wrote {path}")


def settings(doses: str, rates: str, seeds: int, causes: str, rules_see: str, metric: str | None) -> Settings:
    """The settings of a study from the options' texts."""
    return Settings(_numbers("doses", doses), _numbers("rates", rates), seeds, _words(causes), rules_see, metric)


def _words(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(each) for each in _words(text)]
    except ValueError:
        raise ScenarioError(f"--{name}: must be numbers with commas between them; got {text!r}") from None


def _table(found: Explanation) -> Columns:
    """A row per cause, rate and dose."""
    headings = ("cause", "rate", "dose", "staleness", found.metric, "± 95%", "seeds")
    rows = [
        (
            point.cause, f"{point.rate:g}", f"{point.dose:g}", f"{point.staleness:.2f}", f"{point.estimate.mean:.5g}",
            "-" if math.isnan(point.estimate.half_width) else f"{point.estimate.half_width:.2g}",
            str(point.estimate.n),
        )
        for point in found.points
    ]  # fmt: skip
    important = (found.metric, "dose", "staleness", "± 95%", "rate", "seeds")
    return Columns(headings, rows, important, "metric of the last version, by dose of staleness")
