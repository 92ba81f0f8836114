"""Checkpoints of a run: folders that are complete or not there, of arrays and numbers alone; nothing in them is code.

`checkpoints/VERSION/` holds `server.npz` (the parameters, and the rule's vectors), `worker-W.npz` for every worker that
was in, and `state.json`: how many events had happened by then, and how many rows each file of the run had.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError

FOLDER = "checkpoints"
UNFINISHED = "unfinished"
Arrays = dict[str, npt.NDArray[Any]]


class State(NamedTuple):
    """What a checkpoint is of."""

    version: int
    minibatches: int
    events: int  # of the record; what comes after them is forgotten when the run goes on from here
    elapsed_ns: int  # of the run's own clock
    workers: list[int]  # who was in
    rows: dict[str, int]  # of each file of rows, by its name


def begin(run_dir: Path) -> Path:
    """An empty folder to write the next one into."""
    path = run_dir / FOLDER / UNFINISHED
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write(folder: Path, name: str, arrays: Mapping[str, Any]) -> None:
    """One file of a checkpoint, on the disk when this returns."""
    part = folder / f"{name}.npz.part"
    with part.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / f"{name}.npz")


def commit(run_dir: Path, state: State, keep: int) -> Path:
    """Make the unfinished one a checkpoint, and remove all but the newest `keep`."""
    unfinished = run_dir / FOLDER / UNFINISHED
    with (unfinished / "state.json").open("w", encoding="utf-8") as file:
        json.dump(state._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
    _sync(unfinished)
    path = run_dir / FOLDER / f"{state.version:012d}"
    shutil.rmtree(path, ignore_errors=True)
    os.replace(unfinished, path)
    _sync(path.parent)
    for old in all_of(run_dir)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def all_of(run_dir: Path) -> list[Path]:
    """The complete ones, oldest first."""
    return sorted(path.parent for path in (run_dir / FOLDER).glob("[0-9]*/state.json"))


def newest(run_dir: Path) -> Path | None:
    """The one to go on from, if there is any."""
    return next(reversed(all_of(run_dir)), None)


def state_of(path: Path) -> State:
    """What the checkpoint at `path` is of; ScenarioError if it cannot be read."""
    try:
        return State(**json.loads((path / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ScenarioError(f"{path}: is no checkpoint: {error}") from error


def read(path: Path, name: str) -> Arrays:
    """The arrays of one file; ScenarioError if it cannot be read."""
    try:
        with np.load(path / f"{name}.npz", allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{path}: {name}.npz cannot be read: {error}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
