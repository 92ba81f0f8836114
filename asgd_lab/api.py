"""Runs, sweeps, comparisons and replays from Python: they return objects, print nothing and leave signals alone.

A mistake in a scenario raises `ScenarioError` with one line: the mapping's subscripts or the file's line, the fault,
and the allowed values. A failed run raises `RunFailed`, Ctrl-C `Interrupted` (a `KeyboardInterrupt`); both have
`run_dir`, the directory of what was recorded. Functions work in any thread, and where an event loop runs they block it;
runs in several threads take turns.

The caller's code and names are trusted: they are imported, as the command line does with --trust.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgd_lab import live_objects, replays
from asgd_lab.backends.outcome import Progress, Watch
from asgd_lab.comparisons import Comparison, compare_into
from asgd_lab.comparisons import Listener as ComparisonListener
from asgd_lab.errors import Interrupted, ScenarioError, meant, shortened
from asgd_lab.record.machine import usable_cores
from asgd_lab.replays import Replay
from asgd_lab.request import Request
from asgd_lab.run_points import Listener, Place, Together, run_points
from asgd_lab.runs import Run
from asgd_lab.scenario import Document, Scenario, presets
from asgd_lab.scenario.edits import REMOVED
from asgd_lab.scenario.keys import subscripts
from asgd_lab.scenario.plain_data import Plain
from asgd_lab.scenario.source import MOST_LEVELS
from asgd_lab.sweeps import Sweep
from asgd_lab.trust import search

if TYPE_CHECKING:
    from asgd_lab.counterfactual.explanation import Explanation

AnyScenario = str | os.PathLike[str] | Mapping[str, Any] | Scenario
"""The path of a YAML file, the name of a carried scenario, a mapping, or a scenario object."""
Changes = Mapping[str, Any]
"""Values by dotted key, in the place of the scenario's own; `None` removes the key."""
AnyPath = str | os.PathLike[str]

MOST_REPEATS = 1000
_OPTIONS = re.compile(r"--(out|resume|seeds|jobs)\b")


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
    KeyboardInterrupt to end the run in order.
    """
    with _in_python():
        request = requested(scenario, changes)
        points = request.points
        if points[0].name:
            message = f'makes {len(points)} runs; asgd_lab.sweep runs them, changes={{"sweep": None}} removes it'
            raise request.document.located(ScenarioError.at("sweep", message), request.overrides)
        request.check()
        found = run_points(request, _path(out, resume), 1, resume=resume, listener=_Watched(watch))
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
    >>> runs.frame[["workers", "minibatches_per_s"]].round().astype(int).values.tolist()
    [[1, 100], [2, 200]]
    >>> runs["workers=2"].summary["staleness"]["max"]
    1

    Simulated points run in up to `jobs` processes, a core each unless stated; measured ones run one at a time. With
    `seeds`, every point runs with so many seeds, from its own on. A failed point does not end the others: the sweep's
    `failures` has it. `watch` is called with a point's name and its `Progress`.
    """
    with _in_python():
        request = requested(scenario, changes, seeds)
        if not request.points[0].name:
            message = 'is missing; give lists of values by dotted key, as in {"workers": [1, 2, 4]}'
            raise request.document.located(ScenarioError.at("sweep", message), request.overrides)
        jobs = usable_cores() if jobs is None else _count("jobs", jobs)
        request.check()
        return Sweep(run_points(request, _path(out, resume), jobs, resume=resume, listener=_Watched(of_points=watch)))


def compare(
    scenario: AnyScenario | Sequence[AnyScenario],
    changes: Changes | None = None,
    *,
    out: AnyPath | None = None,
    repeats: int = 3,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Measure every point of one or several scenarios with real processes, and predict each by simulation.

    One worker is measured first, for a few seconds; the simulation knows that and nothing else. `say` is called with a
    line at each calibration and each finished point.
    """
    with _in_python():
        given: Any = scenario if isinstance(scenario, list | tuple) else [scenario]
        documents = [document_of(each) for each in given]
        overrides = overrides_of(changes)
        if not documents:
            raise ScenarioError("scenario: is an empty list; give at least one")
        for document in documents:
            Request(document, overrides, document.points(overrides)).check()
        repeats = _count("repeats", repeats, MOST_REPEATS)
        return compare_into(documents, overrides, _path(out), repeats, _Said(say))


def replay(run: Run | AnyPath, *, watch: Callable[[int, int], None] | None = None) -> Replay:
    """Repeat a recorded run in this process, in its recorded order, and compare the bits.

    A difference is no error: `same_bits` is False, and `differences` names it. `ScenarioError` if there is nothing to
    repeat. `watch` is called with the number of events that are done, and of all.
    """
    with _in_python():
        return replays.replay(run.path if isinstance(run, Run) else run, watch)


def report(*of: Run | Sweep | Comparison | AnyPath, out: AnyPath | None = None) -> Path:
    """Write one self-contained page about runs, sweeps and comparisons, and return its path.

    Each is an object or the path of its directory; several stand side by side. Without `out`, the page is report.html
    in the directory, or in the current directory if there are several. It needs the package plotly.
    """
    from asgd_lab.reports import writing

    with _in_python():
        paths = [each.path if isinstance(each, Run | Sweep | Comparison) else Path(each) for each in of]
        return writing.write(paths, None if out is None else Path(out))


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
    own. `rules_see` the recorded or the counterfactual staleness. With `out`, two files are written into that folder.
    `watch` is called with the number of events that are done, and of all.
    """
    with _in_python():
        from asgd_lab.counterfactual.study import Settings
        from asgd_lab.counterfactual.study import explain as study

        settings = Settings(doses, rates, _count("seeds", seeds), causes, rules_see, metric)
        found = study(run.path if isinstance(run, Run) else Path(run), settings, watch)
        if out is not None:
            found.write(out)
        return found


def preset(*names: str) -> dict[str, Any]:
    """The values of a named machine, for a scenario's `hardware`; of several, later ones over earlier ones.

    >>> import asgd_lab
    >>> asgd_lab.preset("laptop")["link"]
    {'latency_s': 5e-05}
    """
    known = presets.names()
    for name in names:
        if name not in known:
            hint = meant(name, known) or ";"
            raise ScenarioError(
                f"preset: there is no preset {shortened(repr(name), 80)}{hint} allowed: {', '.join(known)}"
            )
    filled = presets.filled({"preset": list(names)})
    return copy.deepcopy({key: value for key, value in filled.items() if key != "preset"})


def requested(scenario: AnyScenario, changes: Changes | None = None, seeds: int | None = None) -> Request:
    """The validated points of a scenario with its changes; nothing is built yet."""
    document, overrides = document_of(scenario), overrides_of(changes)
    points = document.points(overrides)
    if seeds is not None:
        points = document.replicated(points, _count("seeds", seeds), overrides)
    return Request(document, overrides, points)


def document_of(scenario: object) -> Document:
    """The document of a scenario as a caller gives it."""
    match scenario:
        case Scenario():
            return Document.of(scenario.model_dump())
        case Mapping():
            return Document.of(scenario, Plain("scenario", live_objects.stand_in))
        case str() | os.PathLike():
            document = Document.read(os.fsdecode(scenario), in_python=True)
            search(os.path.dirname(os.path.abspath(document.path)))
            return document
    kind = type(scenario).__qualname__
    raise ScenarioError(f"scenario: must be a path, the name of a scenario, a mapping or a Scenario; got a {kind}")


def overrides_of(changes: object) -> dict[str, Any]:
    """The overrides of a document that a caller's changes stand for."""
    if changes is None:
        return {}
    if not isinstance(changes, Mapping):
        kind = type(changes).__qualname__
        raise ScenarioError(f'changes: must be a mapping of dotted keys, as in {{"workers": 2}}; got a {kind}')
    found = {}
    for key, value in changes.items():
        if not isinstance(key, str) or not all(key.split(".")) or key.count(".") > MOST_LEVELS:
            shown = shortened(repr(key), 80) if isinstance(key, str | int | float | None) else type(key).__qualname__
            raise ScenarioError(f'changes[{shown}]: must be a dotted key of a scenario, such as "algorithm.n_sync"')
        found[key] = (
            REMOVED if value is None else Plain("changes" + subscripts((key,)), live_objects.stand_in, key).of(value)
        )
    return found


def _path(out: AnyPath | None, resume: bool = False) -> Path | None:
    if resume and out is None:
        raise ScenarioError("resume: needs out, the directory to go on in")
    return None if out is None else Path(out)


def _count(name: str, value: object, most: int | None = None) -> int:
    limits = "at least 1" + ("" if most is None else f" and at most {most:,}")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        raise ScenarioError(f"{name}: must be a whole number, {limits}; got {shortened(repr(value), 40)}")
    return value


@contextlib.contextmanager
def _in_python() -> Iterator[None]:
    """Name arguments as Python does in errors about them: out, not --out."""
    try:
        yield
    except (ScenarioError, Interrupted) as error:
        error.args = tuple(_as_argument(line) for line in error.args)
        raise


def _as_argument(line: str) -> str:
    if line.startswith("--"):
        return _OPTIONS.sub(r"\1", line)
    return line.replace("--resume goes on", "resume=True goes on")


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
