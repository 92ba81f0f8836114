"""The figures that the scenarios of `scenarios/paper` name, drawn from the kept tables of a full run.

`asgd-lab run paper/NAME --seeds 3` draws the same figure from its own runs, by the same code. Errors over time are the
means of 96 spans, since the kept tables have no more.
"""

from __future__ import annotations

import functools
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from collect import settings_of
from matplotlib.figure import Figure
from PIL import Image

from asgd_lab import sweep_figure
from asgd_lab.record import tables
from asgd_lab.record.columns import EVALS
from asgd_lab.scenario import Document, Scenario
from asgd_lab.scenario.writing import brief
from asgd_lab.sweep_tables import Group

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "scenarios" / "paper"
TABLES = Path(__file__).parent / "tables"
KEPT = ROOT / "analysis" / "questions" / "paper"
DPI = 110
TIMING = ("one-minibatch",)  # cheap: `make questions` runs it


def names() -> list[str]:
    """The scenarios whose figures are drawn from the kept tables."""
    return [path.stem for path in sorted(SCENARIOS.glob("*.yaml")) if path.stem not in TIMING]


@functools.cache
def table(name: str) -> pd.DataFrame:
    """The kept table `runs` or `curves`."""
    return pd.read_parquet(TABLES / f"{name}.parquet")


def rows_of(scenario: Scenario, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of all seeds of one point of a scenario."""
    for key, value in settings_of(scenario).items():
        if key != "seed":
            rows = rows[rows[key].isna() if value != value else rows[key] == value]  # nan: the task has no such key
    return rows


def points(name: str) -> list[tuple[Scenario, dict[str, Any]]]:
    """Each point of a scenario, with its swept values."""
    return [(point.scenario, dict(point.values)) for point in Document.read(SCENARIOS / f"{name}.yaml").points()]


def figure(name: str) -> Figure:
    """The figure that the scenario names."""
    groups, found = [], points(name)
    with tempfile.TemporaryDirectory() as folder:
        for number, (scenario, values) in enumerate(found):
            groups.append(Group(brief(values) or scenario.name, values))
            for row in rows_of(scenario, table("runs")).to_dict("records"):
                path = Path(folder) / f"{number}-{row['seed']}"
                groups[-1].runs[row["seed"]] = {"test_error": row["server test"]}
                groups[-1].paths[row["seed"]] = path
                if scenario.figure == "curves":
                    _write_evaluations(path, row["run"], scenario.workers)
        return sweep_figure.figure(found[0][0], groups)


def _write_evaluations(path: Path, run: int, workers: int) -> None:
    """Write the server's test errors of one kept run, as a run directory has them."""
    curves = table("curves")
    rows = curves[(curves["run"] == run) & (curves["whose"] == "server test")]
    path.mkdir()
    written = tables.Rows(EVALS.file(path), EVALS)
    written.extend(
        (int(row.hours * 3.6e12), 0, int(row.steps * workers), "server", "test", "error", float(row.error))
        for row in rows.itertuples()
    )
    written.close()


def png(drawn: Figure) -> bytes:
    """The picture in at most 128 colours, which is enough for curves."""
    full, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(full, format="png", dpi=DPI)
    Image.open(full).convert("RGB").quantize(128).save(small, "png", optimize=True)
    return small.getvalue()


def main(chosen: Sequence[str]) -> None:
    """Draw the named figures, or all."""
    KEPT.mkdir(exist_ok=True)
    for name in chosen or names():
        (KEPT / f"{name}.png").write_bytes(png(figure(name)))


if __name__ == "__main__":
    main(sys.argv[1:])
