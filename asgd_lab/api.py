"""Runs, sweeps, comparisons and replays from Python: they return objects, print nothing and leave signals alone.

A mistake in a scenario raises `ScenarioError` with one line: the mapping's subscripts or the file's line, the fault,
and the allowed values. A failed run raises `RunFailed`, Ctrl-C `Interrupted` (a `KeyboardInterrupt`); both have
`run_dir`, the directory of what was recorded. Functions work in any thread, and where an event loop runs they block it;
runs in several threads take turns.

The caller's code and names are trusted: they are imported, as the command line does with --trust.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from asgd_lab import arguments, replays
from asgd_lab.arguments import AnyPath, named_as_in_python
from asgd_lab.backends.outcome import Progress, Watch
from asgd_lab.comparisons import Comparison, compare_into
from asgd_lab.comparisons import Listener as ComparisonListener
from asgd_lab.errors import ScenarioError
from asgd_lab.record.machine import usable_cores
from asgd_lab.replays import Replay
from asgd_lab.request import AnyScenario, Changes, Request
from asgd_lab.run_points import Finished, Listener, Place, Together, run_points
from asgd_lab.runs import Run
from asgd_lab.scenario import Scenario
from asgd_lab.sweep_tables import Swept
from asgd_lab.sweeps import Sweep

if TYPE_CHECKING:
    from asgd_lab.counterfactual.explanation import Explanation

MOST_REPEATS = 1000
MOST_JOBS = 10_000


def run(
    scenario: AnyScenario,
    changes: Changes | None = None,
    *,
    out: AnyPath | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Run a scenario without a sweep, and return its record.

    >>> import asgd_lab
    >>> bowl = {
    ...     "name": "bowl",
    ...     "task": {"name": "quadratic", "curvature": [1.0, 4.0], "noise": 0.1},
    ...     "algorithm": {"name": "asgd", "n_sync": 2},
    ...     "workers": 2,
    ...     "budget": {"minibatches": 40},
    ...     "backend": "sim",
    ...     "hardware": {"compute": {"step_s": 0.01}},
    ... }
    >>> run = asgd_lab.run(bowl, {"workers": 4})
    >>> run.summary["minibatches"]
    40
    >>> sorted(run.effects["worker"].unique().tolist())
    [-1, 0, 1, 2, 3]

    `out` is a new or empty directory; without it, a new one below runs/. With `resume` the run in `out` continues from
    its last checkpoint, or from its start. `watch` is called with each `Progress` of the run; it may raise
    KeyboardInterrupt to end the run in order, and any other error of it fails the run.
    """
    with named_as_in_python():
        resume = arguments.flag("resume", resume)
        folder = _folder(out, resume)
        arguments.function("watch", watch)
        request = Request.of(scenario, changes)
        points = request.points
        if points[0].name:
            message = f'makes {len(points)} runs; asgd_lab.sweep runs them, changes={{"sweep": None}} removes it'
            raise request.document.located(ScenarioError.at("sweep", message), request.overrides)
        request.check()
        found = run_points(request, folder, 1, resume=resume, listener=_Watched(watch))
        return Run(found.folder)


def sweep(
    scenario: AnyScenario,
    changes: Changes | None = None,
    *,
    out: AnyPath | None = None,
    jobs: int | None = None,
    seeds: int | None = None,
    resume: bool = False,
    watch: Callable[[str, Progress], None] | None = None,
) -> Sweep:
    """Run every point of a scenario's sweep, each into a directory of its own below `out`.

    >>> import asgd_lab
    >>> timing = {
    ...     "name": "timing",
    ...     "task": {"name": "timing", "size_bytes": 1000, "step_s": 0.01},
    ...     "algorithm": {"name": "asgd", "n_sync": 1},
    ...     "budget": {"minibatches": 40},
    ...     "backend": "sim",
    ... }
    >>> runs = asgd_lab.sweep(timing, {"sweep": {"workers": [1, 2]}}, jobs=1)
    >>> runs.frame[["workers", "minibatches_per_s", "speedup"]].round().astype(int).values.tolist()
    [[1, 100, 1], [2, 200, 2]]
    >>> runs["workers=2"].summary["staleness"]["max"]
    1
    >>> asgd_lab.Sweep.open(runs.path).names
    ['workers=1', 'workers=2']

    Simulated points run in up to `jobs` processes, a core each unless stated; measured ones run one at a time. With
    `seeds`, every point runs with so many seeds, from its own on. A failed point does not end the others: the sweep's
    `failures` has it. `watch` is called with a point's name and its `Progress`.
    """
    with named_as_in_python():
        resume = arguments.flag("resume", resume)
        folder = _folder(out, resume)
        arguments.function("watch", watch)
        jobs = usable_cores() if jobs is None else arguments.count("jobs", jobs, MOST_JOBS)
        request = Request.of(scenario, changes, seeds)
        if not request.points[0].name:
            message = 'is missing; give lists of values by dotted key, as in {"workers": [1, 2, 4]}'
            raise request.document.located(ScenarioError.at("sweep", message), request.overrides)
        request.check()
        return swept(run_points(request, folder, jobs, resume=resume, listener=_Watched(of_points=watch)))


def compare(
    scenario: AnyScenario | Sequence[AnyScenario],
    changes: Changes | None = None,
    *,
    out: AnyPath | None = None,
    repeats: int = 3,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Measure every point of one or several scenarios with real processes, and predict each by simulation.

    One worker is measured first, for a few seconds; the simulation knows that and nothing else. Each point is measured
    `repeats` times. `say` is called with a line at each calibration and each finished point.
    """
    with named_as_in_python():
        folder, repeats = _folder(out), arguments.count("repeats", repeats, MOST_REPEATS)
        said = _Said(arguments.function("say", say))
        given = scenario if isinstance(scenario, list | tuple) else [scenario]
        if not given:
            raise ScenarioError("scenario: is an empty list; give at least one")
        return compared([Request.of(each, changes) for each in given], folder, repeats, said)


def compared(requests: Sequence[Request], out: Path | None, repeats: int, listener: ComparisonListener) -> Comparison:
    """As `compare`, for a listener; errors name options of the command line."""
    for request in requests:
        request.check()
    return compare_into([each.document for each in requests], requests[0].overrides, out, repeats, listener)


def replay(run: Run | AnyPath, *, watch: Callable[[int, int], None] | None = None) -> Replay:
    """Repeat a recorded run in this process, in its recorded order, and compare the bits.

    A difference is no error: `same_bits` is False, and `differences` names it. `ScenarioError` if there is nothing to
    repeat. `watch` is called with the number of events that are done, and of all.
    """
    with named_as_in_python():
        path = run.path if isinstance(run, Run) else arguments.path("run", run)
        return replays.replay(path, arguments.function("watch", watch))


def report(*of: Run | Sweep | Comparison | AnyPath, out: AnyPath | None = None) -> Path:
    """Write one self-contained page about runs, sweeps and comparisons, and return its path.

    Each is an object or the path of its directory; several stand side by side. Without `out`, the page is report.html
    in the directory, or in the current directory if there are several. It needs the package plotly.
    """
    from asgd_lab.reports import writing

    with named_as_in_python():
        paths = [each.path if isinstance(each, Run | Sweep | Comparison) else arguments.path("of", each) for each in of]
        return writing.write(paths, _folder(out))


def explain(
    run: Run | AnyPath,
    *,
    doses: Sequence[float] = (1.0, 0.5, 0.0),
    rates: Sequence[float] = (1.0,),
    seeds: int = 10,
    causes: Sequence[str] = ("staleness",),
    rules_see: str = "recorded",
    metric: str | None = None,
    out: AnyPath | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Execute a recorded run again in its order and with its minibatches, with one cause removed at a time.

    Dose 1 of staleness is the record and must give its bits; dose 0 moves every fetch as late as the order allows.
    `rates` are multiples of the recorded learning rate, `seeds` are those of data and initialisation, from the run's
    own. `rules_see` the recorded or the counterfactual staleness. `watch` is called with the number of events that are
    done, and of all.

    With `out`, three files explain* are written into that folder; it is tried before anything is executed. If they
    cannot be written at the end, Python's `warnings` say so, and the result's `write` writes them elsewhere.
    """
    with named_as_in_python():
        from asgd_lab.counterfactual.settings import Settings
        from asgd_lab.counterfactual.study import explain as study

        settings = Settings(doses, rates, seeds, causes, rules_see, metric)
        path = run.path if isinstance(run, Run) else arguments.path("run", run)
        into = _folder(out)
        found = study(path, settings, arguments.function("watch", watch), into=into)
        if into is not None:
            try:
                found.write(into)
            except ScenarioError as error:
                warnings.warn(str(error), stacklevel=2)
        return found


def swept(found: Finished) -> Sweep:
    """The sweep of these finished points."""
    points = [(Swept.of(place.point), place.path) for place in found.places]
    return Sweep(found.folder, points, found.summaries, found.failures)


def _folder(out: object, resume: bool = False) -> Path | None:
    if resume and out is None:
        raise ScenarioError("resume: needs out, the directory to go on in")
    return None if out is None else arguments.path("out", out)


class _Watched(Listener):
    """Passes progress on to the caller's functions."""

    def __init__(self, watch: Watch | None = None, of_points: Callable[[str, Progress], None] | None = None) -> None:
        self._watch, self._of_points = watch, of_points

    def running(
        self, place: Place, checkpoint: Path | None, damaged: Sequence[str]
    ) -> AbstractContextManager[Watch | None]:
        if self._of_points is not None:
            return nullcontext(functools.partial(self._of_points, place.point.name))
        return nullcontext(self._watch)

    def together(
        self, count: int, processes: int, done: int, total: int, folder: Path
    ) -> AbstractContextManager[Together]:
        return nullcontext(_WatchedTogether(self._of_points))


class _WatchedTogether(Together):
    def __init__(self, watch: Callable[[str, Progress], None] | None) -> None:
        self._watch = watch

    def look(self, name: str, scenario: Scenario, progress: Progress) -> None:
        if self._watch is not None:
            self._watch(name, progress)


class _Said(ComparisonListener):
    """Passes lines on to the caller's function."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say = say

    def say(self, line: str) -> None:
        if self._say is not None:
            self._say(line)
