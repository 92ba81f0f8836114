"""Recorded runs as objects: each table is read when it is asked for; nothing is printed, and nothing is written."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asgd_lab import arguments
from asgd_lab.arguments import AnyPath
from asgd_lab.errors import ScenarioError
from asgd_lab.record import saved_model, tables
from asgd_lab.record.run import read_manifest, read_numbers, read_results
from asgd_lab.scenario import Document, Scenario
from asgd_lab.summary_words import rows

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from asgd_lab.replays import Replay

SPAN_S = 0.05  # of a run's time: a timeline's span unless it is stated


class Run:
    """A run in its directory `path`, finished or not: `asgd_lab.run` returns one, and `Run.open` reads one.

    Each table is read when it is asked for, and kept; a frame is the caller's own: it may be changed. A `ScenarioError`
    says why a part of a record cannot be read: it is damaged, or the run has not come as far.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = arguments.path("path", path).absolute()  # a notebook may change its folder before it reads a table

    @classmethod
    def open(cls, path: AnyPath) -> Run:
        """The run that was recorded in a directory, finished or not; a `ScenarioError` if there is none."""
        run = cls(path)
        if not os.path.isdir(run.path):
            raise ScenarioError(f"{run.path}: is not a run directory; there is no such directory")
        if not os.path.exists(run.path / "manifest.json") and os.path.exists(run.path / "sweep.json"):
            raise ScenarioError(f"{run.path}: is the directory of a sweep; asgd_lab.Sweep.open opens it")
        read_manifest(run.path)
        return run

    @property
    def plot(self) -> RunPlots:
        """Figures of the run."""
        return RunPlots(self)

    @property
    def manifest(self) -> dict[str, Any]:
        """Versions, machine, digests of all inputs, and the status; read anew each time."""
        return read_manifest(self.path)

    @property
    def status(self) -> str:
        """The word done, failed, interrupted or running; a killed run stays running."""
        return str(self.manifest["status"])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The numbers of the run; a `ScenarioError` for a run that was killed before it wrote them."""
        return read_numbers(self.path)

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario as it was run, with all defaults."""
        return Document.read(self.path / "scenario.yaml", in_python=True).scenario()

    @cached_property
    def effects(self) -> pd.DataFrame:
        """A row per fetch, train, push and apply, with its times in seconds of the run's clock."""
        return tables.read(self.path, "effects")

    @cached_property
    def evals(self) -> pd.DataFrame:
        """A row per evaluation: split, metric, value, and whose parameters."""
        return tables.read(self.path, "evals")

    @cached_property
    def minibatches(self) -> pd.DataFrame:
        """A row per minibatch: worker, step, time, and the replica's loss and error on it."""
        return tables.read(self.path, "minibatches")

    @cached_property
    def params(self) -> npt.NDArray[np.float32]:
        """(P,) the server's final parameters, or those of the last checkpoint."""
        return saved_model.saved(self.path).params

    @property
    def warnings(self) -> list[str]:
        """Warnings on the run, a line each."""
        return list(self.summary.get("warnings", ()))

    def model(self) -> nn.Module:
        """The trained module with the parameters `params`, in evaluation mode; a new one at each call.

        A `ScenarioError` if the run trained no network. If the source of its code has changed since, Python's
        `warnings` say so.
        """
        from asgd_lab.model_export import trained

        notes: list[str] = []
        module = trained(self.path, notes.append)
        for line in notes:
            warnings.warn(line, stacklevel=2)
        return module

    def replay(self) -> Replay:
        """Repeat the run in its recorded order, and compare the bits; see `asgd_lab.replay`."""
        from asgd_lab.replays import replay

        with arguments.named_as_in_python():
            return replay(self.path)

    def export(self, file: AnyPath) -> Path:
        """Write the state_dict of `model()` to a new file, which `torch.load` reads without this package.

        A `ScenarioError` as from `model()`, or if the file exists.
        """
        from asgd_lab.model_export import export

        path, notes = arguments.path("file", file), list[str]()
        export(self.path, path, notes.append)
        for line in notes:
            warnings.warn(line, stacklevel=2)
        return path

    def tensorboard(self, out: AnyPath = "runs/tensorboard") -> Path:
        """Write the run's curves for TensorBoard below `out`, for `tensorboard --logdir`; return their folder.

        Curves of an earlier call are replaced. Needs the package tensorboardX.
        """
        from asgd_lab.figures import scalars

        with arguments.named_as_in_python():
            (written,) = scalars.write(self.path, arguments.path("out", out))
        assert written.folder is not None, "a single run that cannot be read is an error"
        return written.folder

    def __eq__(self, other: object) -> bool:
        return self.path == other.path if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.path)

    def __reduce__(self) -> tuple[type[Run], tuple[Path]]:
        """A copy, in this process or another one, reads its tables again."""
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"<Run {self.path}: {self._status}>"

    @property
    def _status(self) -> str:
        """The status in words, also of a record that is damaged or gone: a display raises nothing."""
        try:
            return self.status
        except (ScenarioError, OSError) as error:
            return str(error).removeprefix(f"{self.path}: ")

    def _repr_html_(self) -> str:
        told = [("run", str(self.path)), ("status", self._status)]
        try:
            summary = self.summary
        except (ScenarioError, OSError):
            return pairs_html(told)
        if "updates" not in summary:  # it failed before it had numbers
            return pairs_html([*told, *((name, str(summary[name])) for name in ("failure",) if name in summary)])
        return pairs_html([*told, *rows(summary)])


@dataclass(frozen=True, slots=True)
class RunPlots:
    """Figures of a run; a notebook shows them inline."""

    _run: Run

    def timeline(self, start_s: float | None = None, end_s: float | None = None) -> Figure:
        """The activity of workers, servers and links in a span of the run's clock; if not stated, early in the run."""
        from asgd_lab.figures.timeline import timeline

        length_s = read_results(self._run.path)["makespan_s"]
        start_s = 0.0 if start_s is None else arguments.number("start_s", start_s)
        if end_s is None:
            end_s = min(length_s, start_s + SPAN_S * length_s)
        elif arguments.number("end_s", end_s) <= start_s:
            raise ScenarioError(f"end_s: must be after start_s, {start_s:g}; got {end_s:g}")
        return timeline(self._run.path, start_s, end_s)

    def where_time_goes(self) -> Figure:
        """The shares of the workers' time, and the busiest servers and links over time; of simulations."""
        from asgd_lab.figures.where_time_goes import over_time

        return over_time(self._run.path)

    def curves(
        self,
        metric: str | None = None,
        split: str | None = None,
        x: Literal["minibatches", "time_s"] = "minibatches",
    ) -> Figure:
        """One metric of the evaluations during the run; if not stated, test before others, error before loss."""
        from asgd_lab.figures.curves import error_curves

        return error_curves({self._run.path.name: self._run.path}, metric, split, x)

    def staleness(self) -> Figure:
        """The share of applied pushes at each staleness."""
        from asgd_lab.figures.curves import staleness_histogram

        return staleness_histogram({self._run.path.name: self._run.path})


def pairs_html(pairs: Iterable[tuple[str, str]]) -> str:
    """A small table of names and values; text is escaped."""
    cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in pairs)
    return f"<table>{''.join(cells)}</table>"


def table_html(table: pd.DataFrame) -> str:
    """A frame as a small table, with four significant digits; text is escaped."""
    return str(table.to_html(index=False, border=0, float_format=lambda value: f"{value:.4g}", max_rows=60))
