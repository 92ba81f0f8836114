"""Comparisons of prediction and measurement as objects, with their table and their figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgd_lab import arguments, prediction
from asgd_lab.errors import Interrupted, RunFailed, ScenarioError
from asgd_lab.record.directory_locks import check_empty, made_and_locked, without_locks
from asgd_lab.record.directory_names import default_directory
from asgd_lab.record.removal import remove_if_empty
from asgd_lab.runs import table_html
from asgd_lab.scenario import Document

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN = (
    "scenario",
    "group",
    "n_sync",
    "workers",
    "predicted",
    "measured_mean",
    "measured_low",
    "measured_high",
    "error",
)


class Listener:
    """Hears of a comparison; its methods do nothing here."""

    def warned(self, lines: Sequence[str]) -> None:
        """Called with warnings on the directory."""

    def say(self, line: str) -> None:
        """Called with a line at each calibration and each finished point."""

    def written(self, table: pd.DataFrame, paths: Sequence[Path]) -> None:
        """Called with the table of the finished points and its files, also if the comparison ends early."""


class Comparison:
    """A recorded comparison: `path` is its directory, with every run below it.

    `asgd_lab.compare` returns one, and `Comparison.open` reads one from its directory.
    """

    def __init__(self, path: arguments.AnyPath) -> None:
        self.path = arguments.path("path", path).absolute()

    @classmethod
    def open(cls, path: arguments.AnyPath) -> Comparison:
        """The comparison that was recorded in a directory; a `ScenarioError` if there is none."""
        found = cls(path)
        if not os.path.isfile(found.path / "compare.parquet"):
            raise ScenarioError(f"{found.path}: is not the directory of a comparison; compare.parquet is missing")
        found.frame  # noqa: B018  # of a damaged table the error comes now
        return found

    @property
    def plot(self) -> ComparisonPlots:
        """Figures of the comparison."""
        return ComparisonPlots(self)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per point: speed-up predicted and measured with its 95% interval, error, staleness, validity.

        Speed-up is over one device that only computes, the error that of the prediction, relative to the measurement.
        """
        import pandas as pd

        try:
            found = pd.read_parquet(self.path / "compare.parquet")
        except Exception as error:  # no library states which errors unknown bytes may raise
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ScenarioError(f"{self.path}: compare.parquet cannot be read: {said}") from error
        if missing := [name for name in SHOWN if name not in found]:
            raise ScenarioError(f"{self.path}: compare.parquet is not a comparison's: it has no {', '.join(missing)}")
        return found

    def __repr__(self) -> str:
        return f"<Comparison {self.path}: {len(self.frame)} points>"

    def _repr_html_(self) -> str:
        return table_html(self.frame[list(SHOWN)])


@dataclass(frozen=True, slots=True)
class ComparisonPlots:
    """Figures of a comparison; a notebook shows them inline."""

    _comparison: Comparison

    def speedup(self) -> Figure:
        """Predicted and measured speed-up over the workers, the prediction's errors, and mean staleness."""
        from asgd_lab.figures.speedup import speedup_figure

        return speedup_figure(self._comparison.frame)


def compare_into(
    documents: Sequence[Document], overrides: Mapping[str, Any], out: Path | None, repeats: int, listener: Listener
) -> Comparison:
    """Measure and predict every point into a new directory. Finished points are kept, however it ends."""
    import pandas as pd

    prediction.check(documents, overrides)
    folder = out or default_directory("compare")
    rows: list[dict[str, Any]] = []
    with made_and_locked(folder, "--out") as made:
        check_empty(folder, "--out")
        listener.warned(without_locks(folder, "--out"))
        try:
            for row in prediction.compare(documents, overrides, folder, repeats, listener.say):
                rows.append(row)
        except KeyboardInterrupt:
            raise Interrupted(f"what was recorded is in {folder}", run_dir=folder) from None
        except RunFailed as error:
            raise RunFailed(*error.args, run_dir=folder) from error
        finally:
            if rows:
                table = pd.DataFrame(rows)
                listener.written(table, prediction.write(table, folder))
            elif made or out is None:
                remove_if_empty(folder)
    return Comparison(folder)
