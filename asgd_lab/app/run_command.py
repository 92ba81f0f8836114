"""The command `run`: what it shows while points run, and their results at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from asgd_lab import sweep_figure
from asgd_lab.app import display, progress_display
from asgd_lab.app.sweep_display import SweepDisplay, results, sweep_display
from asgd_lab.backends.outcome import Watch
from asgd_lab.errors import RunFailed, ScenarioError, refusal
from asgd_lab.request import Request
from asgd_lab.run_points import Finished, Listener, Place, Summary, run_points
from asgd_lab.scenario import warnings
from asgd_lab.summary_words import brief, crew, doubts


def run(request: Request, out: Path | None, jobs: int, resume: bool) -> list[str]:
    """Run a checked request and show its results; return a line for each failure."""
    shown = _Shown()
    found = run_points(request, out, jobs, resume=resume, listener=shown)
    failures = shown.results(found)
    shown.report(found)
    display.say(shown.console, f"recorded in {found.folder}")
    return failures


class _Shown(Listener):
    """Shows what happens on the terminal."""

    def __init__(self) -> None:
        self.console = display.console()
        self._live = display.is_live(self.console)

    def warned(self, lines: Iterable[str], known: Collection[str] = (), about: str = "") -> None:
        display.warn(lines, known, about)

    def resumed(self, done: Sequence[Place], places: Sequence[Place]) -> None:
        if places[0].point.name:
            display.say(self.console, f"{len(done)} of {len(places)} points are done already")
        else:
            display.say(self.console, f"{places[0].title}: is done already")

    @contextlib.contextmanager
    def running(self, place: Place, checkpoint: Path | None, damaged: Sequence[str]) -> Iterator[Watch]:
        for line in damaged:
            display.say(self.console, f"{line}; the checkpoint before it is used")
        scenario = place.point.scenario
        begins = "" if checkpoint is None else f", from version {int(checkpoint.name)} on"
        said = f"backend {scenario.backend.name}, {crew(scenario.workers)}, into {place.path}{begins}"
        display.say(self.console, f"{place.title}: {said}")
        with progress_display.watching(self.console, scenario, live=self._live) as watch:
            yield watch

    def together(
        self, count: int, processes: int, done: int, total: int, folder: Path
    ) -> AbstractContextManager[SweepDisplay]:
        display.say(self.console, f"{count} points, {processes} at a time, into {folder}")
        return sweep_display(self.console, total, done, live=self._live)

    def interrupted(self) -> None:
        display.say(self.console, "interrupted: saving what was recorded; Ctrl-C again quits at once")

    def ended(self, place: Place, word: Summary | RunFailed, number: int, total: int) -> None:
        name = place.point.name
        if not isinstance(word, RunFailed):
            self.warned(word.get("warnings", ()), warnings.before(place.point.scenario), f"{name}: ")
        said = f"failed: {word}" if isinstance(word, RunFailed) else brief(word)
        display.say(self.console, f"[{number}/{total}] {name}: {said}")

    def results(self, found: Finished) -> list[str]:
        """Show the results; return a line for each failure."""
        if not found.places[0].point.name:
            self.console.print(display.result(next(iter(found.summaries.values()))))
            self._draw(found)
            return []
        for table in results(found.groups):
            self.console.print(table)
        for line in doubts(found.summaries.values()):
            display.say(self.console, line)
        for path in found.tables:
            display.say(self.console, f"wrote {path}")
        failures = [f"{name}: {failure}" for name, failure in found.failures.items()]
        if found.unwritten is not None:
            failures.append(f"the table of the sweep could not be written: {found.unwritten}")
        self._draw(found)
        return failures

    def report(self, found: Finished) -> None:
        """Write the report of what has finished, unless the scenario says not to."""
        if not found.places[0].point.scenario.report or not found.groups:
            return
        from asgd_lab.reports import writing
        from asgd_lab.reports.recorded import opened

        path = writing.write_beside(lambda: opened(found.folder), lambda line: self.warned([line]))
        if path is not None:
            display.say(self.console, f"wrote {found.folder / path.name}")

    def _draw(self, found: Finished) -> None:
        """Draw the figure that answers the scenario's question; a line where it cannot be drawn."""
        scenario, groups = found.places[0].point.scenario, found.groups
        try:
            for path in sweep_figure.draw(scenario, groups, found.folder) if groups else ():
                display.say(self.console, f"wrote {path}")
        except ScenarioError as error:
            display.say(self.console, str(error))
        except OSError as error:
            self.warned([f"the figure could not be written: {refusal(error)}"])
