"""The record of a sweep beside the directories of its runs: `sweep.json`, which names its points in their order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, json_schemas
from asgd_lab.record.run import read_manifest, read_numbers
from asgd_lab.sweep_tables import Swept

FILE = "sweep.json"


def write(folder: Path, points: Iterable[tuple[Swept, str]]) -> None:
    """Write the points, each with the name of its run's directory in `folder`."""
    told = [{**point._asdict(), "folder": name} for point, name in points]
    atomic_files.write_json(folder / FILE, {"points": told})


def read(folder: Path) -> list[tuple[Swept, Path]]:
    """The points of a recorded sweep, and the directories of their runs; a `ScenarioError` if there is no sweep."""
    if not os.path.isfile(folder / FILE):
        what = (
            "is a run; asgd_lab.Run.open opens it" if os.path.exists(folder / "manifest.json") else f"{FILE} is missing"
        )
        raise ScenarioError(f"{folder}: is not the directory of a sweep; {what}")
    found = json_schemas.read_sweep(folder / FILE)["points"]
    return [(Swept(**{key: each[key] for key in Swept._fields}), folder / each["folder"]) for each in found]


def results(points: Sequence[tuple[Swept, Path]]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The summaries of the points that are done, and of each other one the line that says why it is not, by name."""
    found = {point.name: result(run_dir) for point, run_dir in points}
    done = {name: each for name, each in found.items() if not isinstance(each, str)}
    return done, {name: each for name, each in found.items() if isinstance(each, str)}


def result(run_dir: Path) -> dict[str, Any] | str:
    """The summary of a run of a sweep if it is done, else a line that says why it is not, or which file is damaged."""
    if not os.path.exists(run_dir / "manifest.json"):
        return "has not begun"
    try:
        return _result(run_dir)
    except ScenarioError as error:
        return str(error)


def _result(run_dir: Path) -> dict[str, Any] | str:
    status = read_manifest(run_dir)["status"]
    kept = f"; what was recorded is in {run_dir}"
    if status == "running":
        return f"was killed, or is still running{kept}"
    summary = read_numbers(run_dir)
    if status != "done":
        return f"{summary.get('failure', 'was interrupted' if status == 'interrupted' else 'failed')}{kept}"
    return summary
