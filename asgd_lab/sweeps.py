"""Sweeps as objects: the runs of their points, and tables over them; nothing is printed, and nothing is written."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from asgd_lab import arguments, sweep_records, sweep_tables
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.runs import Run, table_html
from asgd_lab.summary_words import load
from asgd_lab.sweep_tables import Group, Swept

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from asgd_lab.scenario import Scenario

Key = str | int | Mapping[str, Any]


class Sweep:
    """The points of a sweep, below the directory `path`: a sequence of runs, which also finds them by their values.

    `asgd_lab.sweep` returns one, and `Sweep.open` reads one from its directory. A point that failed, or was
    interrupted, has no run: `failures` says why. A frame is the caller's own: it may be changed.
    """

    def __init__(
        self,
        path: Path,
        points: Sequence[tuple[Swept, Path]],
        summaries: Mapping[str, Any],
        failures: Mapping[str, str],
    ) -> None:
        # Absolute paths: a notebook may change its folder before it reads a table.
        self.path = path.absolute()
        self._points = [point for point, _ in points]
        self._paths = {point.name: run_dir.absolute() for point, run_dir in points}
        self._numbers = {point.name: number for number, point in enumerate(self._points)}
        self._summaries, self._failures = summaries, failures

    @classmethod
    def open(cls, path: arguments.AnyPath) -> Sweep:
        """The sweep that was recorded in a directory, finished or not; a `ScenarioError` if there is none.

        Points without a finished run are in `failures`.
        """
        folder = arguments.path("path", path)
        points = sweep_records.read(folder)
        return cls(folder, points, *sweep_records.results(points))

    @property
    def plot(self) -> SweepPlots:
        """Figures over the finished points."""
        return SweepPlots(self)

    @property
    def names(self) -> list[str]:
        """The names of all points, such as algorithm.n_sync=10,workers=2, in the order of the sweep."""
        return list(self._numbers)

    @property
    def failures(self) -> dict[str, str]:
        """The failure of each point that did not finish, by its name."""
        return dict(self._failures)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per finished point: its name, its swept values, and the numbers by which runs are compared.

        makespan_s and seconds_to_target are seconds of the run's own clock, utilisations shares of the makespan,
        staleness_mean versions. Speed-up is minibatches_per_s over that of the point with the fewest workers of the
        sweep and otherwise the same values, and efficiency speed-up over the ratio of workers; both are NaN where that
        point has failed. target_speedup is seconds_to_target of that point over those of this one. A target that was
        not reached has no seconds, no minibatches and no speed-up. Measured points have machine_load, the share of the
        machine's cores that others took, and busy, whether that share is too large.
        """
        import pandas as pd

        names = {path: name for name, path in self._paths.items()}
        runs = {names[group.paths[seed]]: numbers for group in self._groups for seed, numbers in group.runs.items()}
        return pd.DataFrame(
            [
                {"point": point.name, **_cells(point), **runs[point.name], **self._load(point.name)}
                for point in self._points
                if point.name in self._summaries
            ]
        )

    @cached_property
    def means(self) -> pd.DataFrame:
        """A row per metric of points that differ in their seed alone: mean, 95% interval `low` to `high`, and the
        number `n` of runs; the interval of one run is NaN.
        """
        return sweep_tables.means(self._groups)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """A row per later point and metric: its mean difference to the first point, paired by seed, with its 95%
        interval; empty if every point has one seed.
        """
        return sweep_tables.differences(self._groups)

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Run]:
        """The runs of all points, in the order of the sweep; `RunFailed` at the first that failed."""
        return (self[name] for name in self.names)

    @overload
    def __getitem__(self, key: Key) -> Run: ...
    @overload
    def __getitem__(self, key: slice) -> list[Run]: ...
    def __getitem__(self, key: Key | slice) -> Run | list[Run]:
        """The run of a point: by its name, its number, or its swept values (enough of them to tell it from others).

        `RunFailed` if that point failed: its record is `Run.open(error.run_dir)`.
        """
        if isinstance(key, slice):
            return [self[name] for name in self.names[key]]
        name = self._points[self._number(key)].name
        if name in self._failures:
            raise RunFailed(self._failures[name], run_dir=self._paths[name])
        return Run(self._paths[name])

    def __repr__(self) -> str:
        failed = f", {len(self._failures)} failed" if self._failures else ""
        return f"<Sweep {self.path}: {len(self)} points{failed}>"

    def _repr_html_(self) -> str:
        import pandas as pd

        failed = pd.DataFrame({"point": list(self._failures), "failed": list(self._failures.values())})
        return table_html(self.frame) + (table_html(failed) if self._failures else "")

    @cached_property
    def _groups(self) -> list[Group]:
        return sweep_tables.groups(self._points, self._summaries, self._paths)

    @cached_property
    def _scenario(self) -> Scenario:
        """The scenario of the first finished point, which names the figure."""
        finished = next((point.name for point in self._points if point.name in self._summaries), None)
        if finished is None:
            raise ScenarioError("figure: there is nothing to draw, since no point has finished")
        return Run(self._paths[finished]).scenario

    def _load(self, name: str) -> dict[str, float | bool]:
        found = load(self._summaries[name])
        return {} if found is None else {"machine_load": sum(found), "busy": found.is_busy}

    def _number(self, key: object) -> int:
        if isinstance(key, numbers.Integral) and not isinstance(key, bool):
            number = int(key)
            if not -len(self) <= number < len(self):
                raise IndexError(f"there is no point {number}; the sweep has {len(self)}")
            return range(len(self))[number]
        if isinstance(key, str):
            found = [self._numbers[key]] if key in self._numbers else []
        elif isinstance(key, Mapping):
            found = [number for number, point in enumerate(self._points) if _has(point.values, key)]
        else:
            kind = type(key).__qualname__
            raise TypeError(f"a point is found by its name, its number or a mapping of its values; not by a {kind}")
        if len(found) != 1:
            what = "there is no such point" if not found else f"{len(found)} points have these values"
            raise KeyError(f"{what}; the points are {', '.join(self.names[:20])}")
        return found[0]


def _has(own: Mapping[str, Any], wanted: Mapping[Any, Any]) -> bool:
    """Whether a point has these swept values; True is not 1."""
    try:
        return all(
            name in own and isinstance(own[name], bool) == isinstance(value, bool) and bool(own[name] == value)
            for name, value in wanted.items()
        )
    except (TypeError, ValueError):  # such as an array, which is not one value
        return False


def _cells(point: Swept) -> dict[str, Any]:
    return {key: sweep_tables.cell(value) for key, value in point.values.items()}


@dataclass(frozen=True, slots=True)
class SweepPlots:
    """Figures over the finished points of a sweep; a notebook shows them inline."""

    _sweep: Sweep

    def answer(self, figure: str | None = None) -> Figure:
        """The figure that answers the scenario's question: the one of its key `figure`, or the one of that name.

        A `ScenarioError` names what these points lack for it, or the known figures.
        """
        from asgd_lab import sweep_figure

        return sweep_figure.figure(self._sweep._scenario, self._sweep._groups, figure)

    def curves(
        self,
        metric: str | None = None,
        split: str | None = None,
        x: Literal["minibatches", "time_s"] = "minibatches",
    ) -> Figure:
        """One metric of the evaluations during each run; if not stated, test before others, error before loss."""
        from asgd_lab.figures.curves import error_curves

        return error_curves(self._runs(), metric, split, x)

    def staleness(self) -> Figure:
        """The share of applied pushes at each staleness, by run."""
        from asgd_lab.figures.curves import staleness_histogram

        return staleness_histogram(self._runs())

    def _runs(self) -> dict[str, Path | str]:
        sweep = self._sweep
        found: dict[str, Path | str] = {name: sweep._paths[name] for name in sweep.names if name in sweep._summaries}
        if not found:
            raise ScenarioError("figure: there is nothing to draw, since no point has finished")
        return found
