"""Checkpoints of a run: folders that are complete or not there, of arrays and numbers alone; nothing in them is code.

`checkpoints/VERSION/` holds `server.npz` (the parameters, and the rule's vectors), `worker-W.npz` for every worker that
was in, and `state.json`: how many events had happened by then, and how many rows each file of the run had.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError
from asgd_lab.record import removal
from asgd_lab.record.rowfile import count_rows

FOLDER = "checkpoints"
UNFINISHED = "unfinished"
EVENTS, PARTS = "events.rows", "parts"  # of the run directory: what happened, and the rows of each process
Arrays = dict[str, npt.NDArray[Any]]


class State(NamedTuple):
    """What a checkpoint is of."""

    version: int
    minibatches: int
    events: int  # of the record; what comes after them is forgotten when the run goes on from here
    elapsed_ns: int  # of the run's own clock
    workers: list[int]  # who was in
    rows: dict[str, int]  # of each file of rows, by its name
    files: dict[str, int | None] = {}  # CRC-32 of each file beside it; an earlier version wrote none  # noqa: RUF012


def begin(run_dir: Path) -> Path:
    """An empty folder to write the next one into."""
    path = run_dir / FOLDER / UNFINISHED
    removal.clear(run_dir, f"{FOLDER}/{UNFINISHED}")
    path.mkdir(parents=True, exist_ok=True)
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
    state = state._replace(files={path.name: _crc_of(path) for path in sorted(unfinished.glob("*.npz"))})
    with (unfinished / "state.json").open("w", encoding="utf-8") as file:
        json.dump({**state._asdict(), "crc32": _crc(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    _sync(unfinished)
    path = run_dir / FOLDER / f"{state.version:012d}"
    removal.clear(run_dir, f"{FOLDER}/{path.name}")
    if path.exists():  # the user's own files are in it
        for each in sorted(unfinished.iterdir(), key=lambda each: each.name == "state.json"):  # it vouches for the rest
            os.replace(each, path / each.name)
    else:
        os.replace(unfinished, path)
    _sync(path.parent)
    for old in all_of(run_dir)[:-keep]:
        removal.clear(run_dir, f"{FOLDER}/{old.name}")
    return path


def all_of(run_dir: Path) -> list[Path]:
    """Those that were committed, oldest first; a file of them may have been damaged since."""
    return sorted((run_dir / FOLDER).glob("[0-9]*"))


def newest(run_dir: Path, to_go_on: bool = False) -> Path | None:
    """The newest one that can be used, if there is any; ScenarioError if all of them are damaged. See `usable`."""
    found, damaged = usable(run_dir, to_go_on)
    if found is None and damaged:
        raise ScenarioError("; ".join(damaged))
    return found


def usable(run_dir: Path, to_go_on: bool = False) -> tuple[Path | None, list[str]]:
    """The newest one that can be read whole, and a line for each newer one, which says what is damaged.

    A run that is `to_go_on` from it needs its rows as well, which one that is done has no more.
    """
    damaged: list[str] = []
    for path in reversed(all_of(run_dir)):
        try:
            state = state_of(path)
            for name in ("server", *(f"worker-{worker}" for worker in state.workers)):
                if state.files and state.files.get(f"{name}.npz") != _crc_of(path / f"{name}.npz"):
                    raise ScenarioError(f"{path}: {name}.npz is damaged: its checksum is another")
                read(path, name)
            if to_go_on:
                _check_rows(run_dir, path, state)
        except ScenarioError as error:
            damaged.append(str(error))
        else:
            return path, damaged
    return None, damaged


def _check_rows(run_dir: Path, path: Path, state: State) -> None:
    files = {run_dir / EVENTS: state.events, **{run_dir / PARTS / name: rows for name, rows in state.rows.items()}}
    for file, rows in files.items():
        try:
            found = count_rows(file)
        except (OSError, ValueError) as error:
            raise ScenarioError(f"{path}: cannot be gone on from: {error}") from error
        if found < rows:
            raise ScenarioError(f"{path}: cannot be gone on from: {file} has {found:,} rows, and had {rows:,}")


def state_of(path: Path) -> State:
    """What the checkpoint at `path` is of; ScenarioError if it cannot be read, or is not what was written."""
    try:
        stored = json.loads((path / "state.json").read_text(encoding="utf-8"))
        crc = stored.pop("crc32", None)  # what an earlier version wrote has none
        state = State(**stored)
        if crc is not None and crc != _crc(state):
            raise ValueError("its checksum is another")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ScenarioError(f"{path}: state.json is damaged: {error}") from error
    return state


def _crc_of(path: Path) -> int | None:
    """CRC-32 of a file's bytes; None where there is no such file."""
    crc = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                crc = zlib.crc32(chunk, crc)
    except OSError:
        return None
    return crc


def _crc(state: State) -> int:
    return zlib.crc32(json.dumps(state, sort_keys=True).encode())


def read(path: Path, name: str) -> Arrays:
    """The arrays of one file; ScenarioError if it cannot be read."""
    try:
        with np.load(path / f"{name}.npz", allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ScenarioError(f"{path}: {name}.npz is damaged: {error}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
