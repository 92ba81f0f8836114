"""The command `run` and its messages: one point in place, or a sweep in several processes.

A simulated point gives the same bytes wherever it runs, so simulated points run in processes of their own. Measured
points run in this process, one at a time, when no other point of the sweep runs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from asgd_lab import choices, display, progress_display, sweep, tasks
from asgd_lab.backends import inputs, room
from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.real.pool import Job, Pool
from asgd_lab.backends.run import check_place, execute, with_samples
from asgd_lab.backends.settings import settled
from asgd_lab.backends.trial import check_algorithm
from asgd_lab.errors import RunFailed, ScenarioError, refusal
from asgd_lab.hardware.costs import check_memory
from asgd_lab.record.checkpoints import all_of, usable
from asgd_lab.record.code_sources import roots
from asgd_lab.record.directory_locks import made_and_locked, without_locks
from asgd_lab.record.removal import remove_if_empty
from asgd_lab.record.run import default_directory, file_names, read_manifest
from asgd_lab.scenario import Document, Point, Scenario, warnings
from asgd_lab.scenario.keys import covers
from asgd_lab.sweep_display import results, sweep_display
from asgd_lab.trust import is_trusted


@dataclass(frozen=True, slots=True)
class Request:
    """A scenario file with the command line's overrides, and its points."""

    document: Document
    overrides: Mapping[str, Any]
    points: Sequence[Point]
    _doubts: list[str] = field(default_factory=list)  # of the tasks that were checked

    @contextlib.contextmanager
    def located(self, point: Point) -> Iterator[None]:
        """Add file, line and point of the sweep to a ScenarioError."""
        try:
            yield
        except ScenarioError as error:
            if point.name and error.key:
                swept = [f"sweep.{key}" for key in point.values if covers(key, error.key)]
                error = ScenarioError.at((swept or [error.key])[-1], f"{error} (at the sweep's point {point.name})")
            raise self.document.located(error, self.overrides) from None

    @settled()
    def check(self, *, partly: bool = False) -> tasks.Named:
        """Check now that all points can be built, so that the last of them does not fail after hours.

        Untrusted code is refused; with `partly`, everything else is checked, and the code left out is returned.
        """
        seen: list[tuple[Any, int]] = []  # tasks built already, and their numbers of parameters
        untrusted: tasks.Named = []
        for point in self.points:
            scenario = point.scenario
            with self.located(point):
                check_place(scenario)
            named = (
                scenario.task, scenario.warm_start, scenario.hardware.compute, scenario.hardware.device,
                scenario.algorithm.push, scenario.backend.checkpoint is None, scenario.budget.error_in_pushes is None,
                scenario.backend.device, scenario.backend.deterministic,
            )  # fmt: skip
            known = next((size for other, size in seen if other == named), None)
            with self.located(point):
                left = inputs.untrusted(scenario)
                if left and not partly:
                    raise ScenarioError.at(left[0][0], tasks.refusal(left))
                untrusted += [each for each in left if each not in untrusted]
                if not choices.unread(scenario.algorithm):
                    check_algorithm(scenario)
                if known is None:
                    known = self._checked(scenario, left)
                    seen.append((named, known))
                elif not left:
                    room.check(scenario, known)
        return untrusted

    def _checked(self, scenario: Scenario, untrusted: tasks.Named) -> int:
        """Build a scenario's task, or what of it is trusted; how many parameters it has, if that is known."""
        with_samples(scenario)
        of_task = [(key, name) for key, name in untrusted if key.startswith("task.")]
        if of_task:
            tasks.check_rest(scenario.task, scenario.seed, of_task, scenario.workers)
            return 0
        task = build_task(scenario)
        self._doubts.extend(task.doubts)
        if not untrusted:
            room.check(scenario, task.size)
        check_memory(scenario.hardware, task.size_bytes)
        if scenario.warm_start is not None and scenario.warm_start.run is not None:
            initial_parameters(scenario, task)
        return task.size

    def warnings(self) -> list[str]:
        """Warnings on allowed but doubtful values of the points, each once."""
        found = [line for point in self.points for line in warnings.before(point.scenario)]
        return list(dict.fromkeys([*found, *self._doubts, *warnings.alike(self.points)]))

    def run(self, out: Path | None, jobs: int, resume: bool) -> list[str]:
        """Run every point, simulated ones in up to `jobs` processes; return a line for each failed one.

        With `resume`, finished points in `out` are kept, and the others are resumed or restarted.
        """
        console = display.console()
        folder = out or default_directory(self.points[0].scenario.name)
        failures: list[str] = []
        option = "--resume" if resume else "--out"
        with made_and_locked(folder, option) as made:
            display.warn(without_locks(folder, option))
            try:
                if self.points[0].name:
                    failures = _Sweep(console, self, folder, resume).run(jobs)
                else:
                    _run_alone(console, self, Place(self.points[0], folder), resume)
            finally:
                if made or out is None:
                    remove_if_empty(folder)
        display.say(console, f"recorded in {folder}")
        return failures


def find_sources(out: Path) -> None:
    """Append to the search path the folders from which the runs to resume imported their code."""
    for run_dir in (out, *sorted(out.glob("*/"))):
        with contextlib.suppress(ScenarioError, KeyError, TypeError, AttributeError):
            code = read_manifest(run_dir)["inputs"]["code"]
            sys.path += [root for root in roots(code) if root not in sys.path]


class Place(NamedTuple):
    """A point, and the directory of its run."""

    point: Point
    path: Path

    @property
    def measured(self) -> bool:
        """Whether the point is measured, so that no other may run beside it."""
        return self.point.scenario.backend.execution.measured

    @property
    def goes_on(self) -> bool:
        """Whether the unfinished run in this directory has a checkpoint to resume from."""
        return self.measured and bool(all_of(self.path))

    @property
    def kept(self) -> str:
        """The end of a message about an unfinished run: the path of its record."""
        return f"; what was recorded is in {self.path}" if os.path.lexists(self.path) else ""


def _run_alone(console: Console, request: Request, place: Place, resume: bool) -> None:
    summary = sweep.recorded(*place) if resume else None
    if summary is not None:
        display.say(console, f"{place.point.scenario.name}: is done already")
    else:
        try:
            summary = _execute(console, request, place, resume)
        except RunFailed as error:
            raise RunFailed(f"{error}{place.kept}") from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(place.kept) from None
    console.print(display.result(summary))
    display.warn(summary.get("warnings", ()), known=request.warnings())


def _execute(console: Console, request: Request, place: Place, resume: bool) -> dict[str, Any]:
    """Run a point in this process, and show its progress."""
    scenario, live = place.point.scenario, display.is_live(console)
    title = f"{scenario.name} {place.point.name}".strip()
    crew = display.crew(scenario.workers)
    goes_on = resume and place.goes_on
    checkpoint, damaged = usable(place.path, to_resume=True) if goes_on else (None, [])
    for line in damaged if checkpoint is not None else ():
        display.say(console, f"{line}; the checkpoint before it is used")
    begins = "" if checkpoint is None else f", from version {int(checkpoint.name)} on"
    display.say(console, f"{title}: backend {scenario.backend.name}, {crew}, into {place.path}{begins}")
    with request.located(place.point), progress_display.watching(console, scenario, live=live) as watch:
        summary = execute(scenario, place.path, watch, resume=goes_on, restart=resume and not goes_on)
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt
    return summary


class _Sweep:
    """The points of one command, and their summaries and failures by name."""

    def __init__(self, console: Console, request: Request, folder: Path, resume: bool) -> None:
        self.console, self.request, self.folder, self.resume = console, request, folder, resume
        names = file_names(point.name for point in request.points)
        self.places = [Place(point, folder / name) for point, name in zip(request.points, names, strict=True)]
        self.summaries: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}

    def run(self, jobs: int) -> list[str]:
        """Run the unfinished points, show and write the sweep's tables; return a line for each failed point."""
        try:
            left = self._left()
            apart = [place for place in left if not place.measured]
            processes = min(jobs, len(apart))
            if processes > 1:
                self._run_apart(apart, processes)
                left = [place for place in left if place.measured]
            for place in left:
                self._run_here(place)
        except KeyboardInterrupt:
            kept = f"; what was recorded is in {self.folder}, and --resume goes on with it"
            raise KeyboardInterrupt(kept) from None
        groups = sweep.groups(self.request.points, self.summaries)
        for table in results(groups):
            self.console.print(table)
        failures = [f"{name}: {failure}" for name, failure in self.failures.items()]
        try:
            for path in sweep.write(groups, self.folder):
                display.say(self.console, f"wrote {path}")
        except OSError as error:
            failures.append(f"the table of the sweep could not be written: {refusal(error)}")
        return failures

    def _left(self) -> list[Place]:
        """The unfinished points. All directories are checked before the first is changed."""
        if not self.resume:
            return self.places
        sweep.check_folder(self.folder)
        for place in self.places:
            summary = sweep.recorded(*place)
            if summary is not None:
                self.summaries[place.point.name] = summary
        display.say(self.console, f"{len(self.summaries)} of {len(self.places)} points are done already")
        return [place for place in self.places if place.point.name not in self.summaries]

    def _run_apart(self, places: Sequence[Place], processes: int) -> None:
        total, done = len(self.places), len(self.summaries)
        display.say(self.console, f"{len(places)} points, {processes} at a time, into {self.folder}")
        shown = sweep_display(self.console, total, done, live=display.is_live(self.console))
        hint = "interrupted: saving what was recorded; Ctrl-C again quits at once"
        with Pool(processes, lambda: display.say(self.console, hint)) as pool, shown as bars:
            for number, word in pool.run(map(self._job, places)):
                place = places[number]
                if isinstance(word, Progress):
                    bars.look(place.point.name, place.point.scenario, word)
                else:
                    bars.over(place.point.name)
                    self._note(place, word)

    def _job(self, place: Place) -> Job:
        return Job(place.point.scenario, place.path, is_trusted(), self.resume)

    def _run_here(self, place: Place) -> None:
        try:
            word: dict[str, Any] | RunFailed = _execute(self.console, self.request, place, self.resume)
        except RunFailed as error:
            word = error
        gc.collect()  # a run's data are in reference cycles, and those of many points would fill the memory
        self._note(place, word)

    def _note(self, place: Place, word: dict[str, Any] | ScenarioError | RunFailed) -> None:
        """Note the result of one point, and show it."""
        name = place.point.name
        if isinstance(word, ScenarioError):  # the other points are likely to have the same fault
            with self.request.located(place.point):
                raise word
        if isinstance(word, RunFailed):
            self.failures[name] = f"{word}{place.kept}"
            said = f"failed: {word}"
        else:
            self.summaries[name] = word
            said = display.brief(word)
            display.warn(word.get("warnings", ()), known=warnings.before(place.point.scenario), about=f"{name}: ")
        number = len(self.summaries) + len(self.failures)
        display.say(self.console, f"[{number}/{len(self.places)}] {name}: {said}")
