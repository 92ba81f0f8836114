"""Sweeps as objects: the runs of their points, and tables over them; nothing is printed, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from asgd_lab import sweep_tables
from asgd_lab.errors import RunFailed
from asgd_lab.record.replications import metrics
from asgd_lab.run_points import Finished
from asgd_lab.runs import Run, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Key = str | int | Mapping[str, Any]


class Sweep:
    """The points of a sweep, below the directory `path`: a sequence of runs, which also finds them by their values."""

    def __init__(self, finished: Finished) -> None:
        # Absolute paths: a notebook may change its folder before it reads a table.
        places = [place._replace(path=place.path.absolute()) for place in finished.places]
        self._finished = replace(finished, folder=finished.folder.absolute(), places=places)
        self.path = self._finished.folder
        self.plot = SweepPlots(self)

    @property
    def names(self) -> list[str]:
        """The names of all points, such as algorithm.n_sync=10,workers=2, in the order of the sweep."""
        return [place.point.name for place in self._finished.places]

    @property
    def failures(self) -> Mapping[str, str]:
        """The failure of each point that did not finish, by its name."""
        return self._finished.failures

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per finished point: its name, its swept values, and the numbers by which runs are compared."""
        found = self._finished
        return pd.DataFrame(
            [
                {
                    "point": place.point.name,
                    **{key: sweep_tables.cell(value) for key, value in place.point.values.items()},
                    **metrics(found.summaries[place.point.name]),
                }
                for place in found.places
                if place.point.name in found.summaries
            ]
        )

    @cached_property
    def means(self) -> pd.DataFrame:
        """A row per metric of points that differ in their seed alone: mean, 95% interval, and the number of runs."""
        return sweep_tables.means(self._finished.groups)

    def __len__(self) -> int:
        return len(self._finished.places)

    def __iter__(self) -> Iterator[Run]:
        """The runs of all points, in the order of the sweep; `RunFailed` at the first that failed."""
        return (self[name] for name in self.names)

    def __getitem__(self, key: Key) -> Run:
        """The run of a point: by its name, its number, or its swept values (enough of them to tell it from others).

        `RunFailed` if that point failed: its record is `Run.open(error.run_dir)`.
        """
        place = self._finished.places[self._number(key)]
        if place.point.name in self.failures:
            raise RunFailed(self.failures[place.point.name], run_dir=place.path)
        return Run(place.path)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Sweep {self.path}: {len(self)} points{failed}>"

    def _repr_html_(self) -> str:
        failed = pd.DataFrame({"point": list(self.failures), "failed": list(self.failures.values())})
        return table_html(self.frame) + (table_html(failed) if self.failures else "")

    def _number(self, key: Key) -> int:
        if isinstance(key, int):
            return range(len(self))[key]
        if isinstance(key, str):
            found = [number for number, name in enumerate(self.names) if name == key]
        else:
            values = [place.point.values for place in self._finished.places]
            found = [
                number
                for number, own in enumerate(values)
                if all(name in own and own[name] == value for name, value in key.items())
            ]
        if len(found) != 1:
            what = "there is no such point" if not found else f"{len(found)} points have these values"
            raise KeyError(f"{what}; the points are {', '.join(self.names[:20])}")
        return found[0]


@dataclass(frozen=True, slots=True)
class SweepPlots:
    """Figures over the finished points of a sweep; a notebook shows them inline."""

    _sweep: Sweep

    def answer(self, figure: str | None = None) -> Figure:
        """The figure that answers the scenario's question: the one of its key `figure`, or the one of that name."""
        from asgd_lab import sweep_figure

        finished = self._sweep._finished
        return sweep_figure.figure(finished.places[0].point.scenario, finished.groups, figure)

    def curves(
        self, metric: str = "error", split: str = "test", x: Literal["minibatches", "time_s"] = "minibatches"
    ) -> Figure:
        """One metric of the evaluations during each run."""
        from asgd_lab.figures.curves import error_curves

        return error_curves(self._runs(), metric, split, x)

    def staleness(self) -> Figure:
        """The share of applied pushes at each staleness, by run."""
        from asgd_lab.figures.curves import staleness_histogram

        return staleness_histogram(self._runs())

    def _runs(self) -> dict[str, Path | str]:
        names: Sequence[str] = self._sweep.names
        return {name: self._sweep[name].path for name in names if name not in self._sweep.failures}
