"""Comparisons of prediction and measurement as objects, with their table and their figure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from asgd_lab import prediction
from asgd_lab.errors import Interrupted, RunFailed, ScenarioError
from asgd_lab.record.directory_locks import check_empty, made_and_locked, without_locks
from asgd_lab.record.removal import remove_if_empty
from asgd_lab.record.run import default_directory
from asgd_lab.runs import table_html
from asgd_lab.scenario import Document

if TYPE_CHECKING:
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
    """A recorded comparison: `path` is its directory, with every run below it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.plot = ComparisonPlots(self)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Comparison:
        """The comparison that was recorded in a directory; a `ScenarioError` if there is none."""
        found = cls(path)
        if not (found.path / "compare.parquet").is_file():
            raise ScenarioError(f"{found.path}: is not the directory of a comparison; compare.parquet is missing")
        return found

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per point: speed-up predicted and measured with its 95% interval, error, staleness, validity."""
        return pd.read_parquet(self.path / "compare.parquet")

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
