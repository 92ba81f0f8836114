"""Runs the points of a request into directories, and tells a listener; nothing is printed here.

A simulated point gives the same bytes wherever it runs, so simulated points run in processes of their own. Measured
points run in this process, one at a time, when no other point of the sweep runs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from asgd_lab import sweep_records, sweep_tables
from asgd_lab.backends.outcome import Progress, Watch
from asgd_lab.backends.real.pool import Job, Pool
from asgd_lab.backends.resuming import how_far
from asgd_lab.backends.run import execute, resolved
from asgd_lab.errors import Interrupted, RunFailed, ScenarioError, refusal
from asgd_lab.record.checkpoints import all_of, usable
from asgd_lab.record.code_sources import roots
from asgd_lab.record.directory_locks import made_and_locked, without_locks
from asgd_lab.record.directory_names import default_directory, file_names
from asgd_lab.record.removal import remove_if_empty
from asgd_lab.record.run import read_manifest, read_numbers
from asgd_lab.request import Request
from asgd_lab.scenario import Point, Scenario
from asgd_lab.sweep_tables import Group, Swept
from asgd_lab.trust import is_trusted

Summary = dict[str, Any]


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
    def title(self) -> str:
        """The names of scenario and point."""
        return f"{self.point.scenario.name} {self.point.name}".strip()

    @property
    def kept(self) -> str:
        """The end of a message about an unfinished run: the path of its record."""
        return f"; what was recorded is in {self.path}" if os.path.lexists(self.path) else ""


class Together:
    """Hears the progress of points that run at the same time; its methods do nothing here."""

    def look(self, name: str, scenario: Scenario, progress: Progress) -> None:
        """Called with each progress of a point; the first is before it starts."""

    def over(self, name: str) -> None:
        """Called when a point has ended, with or without success."""


class Listener:
    """Hears what happens to the points of a request; its methods do nothing here."""

    def warned(self, lines: Iterable[str], known: Collection[str] = (), about: str = "") -> None:
        """Called with warnings; those that are `known` were told before. `about` names a point."""

    def resumed(self, done: Sequence[Place], places: Sequence[Place]) -> None:
        """Called with the points that are done already, of all points of a request that resumes."""

    def running(
        self, place: Place, checkpoint: Path | None, damaged: Sequence[str]
    ) -> AbstractContextManager[Watch | None]:
        """A context around the run of one point in this process, which starts from that checkpoint, if any; it yields
        the function to call with each progress. `damaged` has a line for each newer checkpoint that is not usable.
        """
        return contextlib.nullcontext()

    def together(
        self, count: int, processes: int, done: int, total: int, folder: Path
    ) -> AbstractContextManager[Together]:
        """A context around `count` points in so many processes, after `done` of `total`."""
        return contextlib.nullcontext(Together())

    def interrupted(self) -> None:
        """Called when an interrupt makes all processes save their recorded data, before it waits for them."""

    def ended(self, place: Place, word: Summary | RunFailed, number: int, total: int) -> None:
        """Called with the summary or the failure of a point of a sweep, the `number`-th of `total`."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The summaries of a request's finished points and the failures of others, by the names of the points."""

    folder: Path
    places: Sequence[Place]
    summaries: Mapping[str, Summary]
    failures: dict[str, str] = field(default_factory=dict)
    tables: Sequence[Path] = ()
    unwritten: str | None = None
    """The reason why the tables of the sweep could not be written."""

    @property
    def groups(self) -> list[Group]:
        """The finished points of a sweep, grouped with their replications."""
        paths = {place.point.name: place.path for place in self.places}
        return sweep_tables.groups([Swept.of(place.point) for place in self.places], self.summaries, paths)


def run_points(
    request: Request, out: Path | None, jobs: int, *, resume: bool = False, listener: Listener | None = None
) -> Finished:
    """Run every point of a checked request, simulated ones in up to `jobs` processes.

    A single run that fails raises `RunFailed`; of a sweep, each failed point is noted. `Interrupted` says where the
    record is. With `resume`, finished points in `out` are kept, and the others are resumed or restarted.
    """
    listener = listener or Listener()
    folder = out or default_directory(request.points[0].scenario.name)
    option = "--resume" if resume else "--out"
    with made_and_locked(folder, option) as made:
        listener.warned(without_locks(folder, option))
        try:
            if request.points[0].name:
                return _Sweep(listener, request, folder, resume).run(jobs)
            return _run_alone(listener, request, Place(request.points[0], folder), resume)
        finally:
            if made or out is None:
                remove_if_empty(folder)


def is_unfinished(request: Request, out: Path) -> bool:
    """Whether `out` holds a part of this request's work, and not all; ScenarioError if it holds anything else."""
    if not request.points[0].name:
        return how_far(out, resolved(request.points[0].scenario)) == "unfinished"
    if (out / "manifest.json").exists():
        return False
    names = file_names(point.name for point in request.points)
    found = {how_far(out / name, resolved(point.scenario)) for point, name in zip(request.points, names, strict=True)}
    return bool(found - {"nothing"}) and found != {"done"}


def find_sources(out: Path) -> None:
    """Append to the search path the folders from which the runs to resume imported their code."""
    for run_dir in (out, *sorted(out.glob("*/"))):
        with contextlib.suppress(ScenarioError, KeyError, TypeError, AttributeError):
            code = read_manifest(run_dir)["inputs"]["code"]
            sys.path += [root for root in roots(code) if root not in sys.path]


def _recorded(point: Point, path: Path) -> Summary | None:
    """The summary of this very run if it is finished; ScenarioError if another run or file is in its place."""
    return read_numbers(path) if how_far(path, resolved(point.scenario)) == "done" else None


def _run_alone(listener: Listener, request: Request, place: Place, resume: bool) -> Finished:
    summary = _recorded(*place) if resume else None
    if summary is not None:
        listener.resumed([place], [place])
    else:
        try:
            summary = _execute(listener, request, place, resume)
        except RunFailed as error:
            raise RunFailed(f"{error}{place.kept}", run_dir=place.path) from error
        except KeyboardInterrupt:
            raise Interrupted(place.kept.removeprefix("; "), run_dir=place.path) from None
    listener.warned(summary.get("warnings", ()), known=request.warnings())
    return Finished(place.path, [place], {place.point.name: summary})


def _execute(listener: Listener, request: Request, place: Place, resume: bool) -> Summary:
    """Run a point in this process."""
    goes_on = resume and place.goes_on
    checkpoint, damaged = usable(place.path, to_resume=True) if goes_on else (None, [])
    told = damaged if checkpoint is not None else []
    with request.located(place.point), listener.running(place, checkpoint, told) as watch:
        summary = execute(
            place.point.scenario, place.path, watch, resume=goes_on, restart=resume and not goes_on,
            point=place.point.name,
        )  # fmt: skip
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt
    return summary


class _Sweep:
    """The points of one request, and their summaries and failures by name."""

    def __init__(self, listener: Listener, request: Request, folder: Path, resume: bool) -> None:
        self.listener, self.request, self.folder, self.resume = listener, request, folder, resume
        names = file_names(point.name for point in request.points)
        self.places = [Place(point, folder / name) for point, name in zip(request.points, names, strict=True)]
        self.summaries: dict[str, Summary] = {}
        self.failures: dict[str, str] = {}
        self._is_recorded = False

    def run(self, jobs: int) -> Finished:
        """Run the unfinished points, and write the sweep's tables."""
        try:
            left = self._left()
            if self.summaries:
                self._record()
            apart = [place for place in left if not place.measured]
            processes = min(jobs, len(apart))
            if processes > 1:
                self._run_apart(apart, processes)
                left = [place for place in left if place.measured]
            for place in left:
                self._run_here(place)
        except KeyboardInterrupt:
            if any(place.path.exists() for place in self.places):
                self._record()
            kept = f"what was recorded is in {self.folder}, and --resume goes on with it"
            raise Interrupted(kept, run_dir=self.folder) from None
        found = Finished(self.folder, self.places, self.summaries, self.failures)
        try:
            return replace(found, tables=sweep_tables.write(found.groups, self.folder))
        except OSError as error:
            return replace(found, unwritten=refusal(error))

    def _left(self) -> list[Place]:
        """The unfinished points. All directories are checked before the first is changed."""
        if not self.resume:
            return self.places
        if (self.folder / "manifest.json").exists():
            raise ScenarioError(f"--resume: {self.folder} holds a single run, not a sweep; choose another --out")
        for place in self.places:
            summary = _recorded(*place)
            if summary is not None:
                self.summaries[place.point.name] = summary
        done = [place for place in self.places if place.point.name in self.summaries]
        self.listener.resumed(done, self.places)
        return [place for place in self.places if place.point.name not in self.summaries]

    def _run_apart(self, places: Sequence[Place], processes: int) -> None:
        shown = self.listener.together(len(places), processes, len(self.summaries), len(self.places), self.folder)
        with Pool(processes, self.listener.interrupted) as pool, shown as heard:
            for number, word in pool.run(map(self._job, places)):
                place = places[number]
                if isinstance(word, Progress):
                    heard.look(place.point.name, place.point.scenario, word)
                else:
                    heard.over(place.point.name)
                    self._note(place, word)

    def _job(self, place: Place) -> Job:
        return Job(place.point.scenario, place.path, is_trusted(), self.resume, place.point.name)

    def _run_here(self, place: Place) -> None:
        try:
            word: Summary | RunFailed = _execute(self.listener, self.request, place, self.resume)
        except RunFailed as error:
            word = error
        gc.collect()  # a run's data are in reference cycles, and those of many points would fill the memory
        self._note(place, word)

    def _note(self, place: Place, word: Summary | ScenarioError | RunFailed) -> None:
        """Note the result of one point."""
        if isinstance(word, ScenarioError):  # the other points are likely to have the same fault
            with self.request.located(place.point):
                raise word
        if isinstance(word, RunFailed):
            self.failures[place.point.name] = f"{word}{place.kept}"
        else:
            self.summaries[place.point.name] = word
        self._record()
        self.listener.ended(place, word, len(self.summaries) + len(self.failures), len(self.places))

    def _record(self) -> None:
        """Write the names of all points, once there is a run of one."""
        if not self._is_recorded:
            self._is_recorded = True
            with contextlib.suppress(OSError):  # the tables at the end are reported
                sweep_records.write(self.folder, ((Swept.of(place.point), place.path.name) for place in self.places))
