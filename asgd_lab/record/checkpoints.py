"""Checkpoints of a run: folders that are complete or not there, of arrays and numbers alone; nothing in them is code.

`checkpoints/VERSION/` holds `server.npz` (the parameters, and the rule's vectors), `worker-W.npz` for every worker that
was in, and `state.json`: how many events had happened by then, how many rows each file of the run had, and checksums
of all that it stands on.

Until all of that is written it lies in `checkpoints/unfinished-NUMBER/`. One that is abandoned is removed, whoever
still writes a part of it; no later one has its number, and so its folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, json_schemas, removal, rowfile
from asgd_lab.record.atomic_files import Arrays
from asgd_lab.record.rowfile import Extent

FOLDER = "checkpoints"
UNFINISHED = "unfinished"
EVENTS, PARTS = "events.rows", "parts"  # of the run directory: what happened, and the rows of each process
ROW_FILES, COPIES = {".effects", ".minibatches", ".snapshots", ".distances"}, "*.*.npz"  # of parts


class State(NamedTuple):
    """What a checkpoint is of."""

    version: int
    minibatches: int
    events: int  # of the record; what comes after them is forgotten when the run goes on from here
    elapsed_ns: int  # of the run's own clock
    workers: list[int]  # who was in
    rows: dict[str, int]  # of each file of rows, by its name
    # Checksums: of those rows and events, and of each file beside this one. An earlier version wrote none.
    row_checksums: dict[str, int | None] = {}  # noqa: RUF012
    files: dict[str, str | None] = {}  # noqa: RUF012


def begin(run_dir: Path, number: int) -> None:
    """Make an empty folder for checkpoint `number`, which no other has; earlier unfinished ones are abandoned."""
    abandon(run_dir)
    _unfinished(run_dir, number).mkdir(parents=True)


def abandon(run_dir: Path) -> None:
    """Remove what is unfinished."""
    for path in sorted((run_dir / FOLDER).glob(f"{UNFINISHED}*")):
        removal.clear(run_dir, f"{FOLDER}/{path.name}")


def write(run_dir: Path, number: int, name: str, arrays: Mapping[str, Any]) -> bool:
    """Write one file of checkpoint `number`: it is on the disk when this returns. False if that one is abandoned."""
    folder = _unfinished(run_dir, number)
    try:
        atomic_files.write_arrays(folder / f"{name}.npz", arrays)
    except FileNotFoundError:
        if folder.exists():
            raise
        return False
    return True


def _unfinished(run_dir: Path, number: int) -> Path:
    return run_dir / FOLDER / f"{UNFINISHED}-{number}"


def commit(
    run_dir: Path, number: int, *, version: int, minibatches: int, elapsed_ns: int, workers: list[int], keep: int
) -> Path:  # fmt: skip
    """Make the unfinished `number` a checkpoint of this state, and remove all but the newest `keep`.

    The rows that it stands on are on the disk when this returns. Those of a later version are of a past that a resume
    has given up: their rows are gone.
    """
    unfinished = _unfinished(run_dir, number)
    parts = [path for path in (run_dir / PARTS).iterdir() if path.suffix in ROW_FILES]
    copies = list((run_dir / PARTS).glob(COPIES))
    extents = {path.name: rowfile.extent(path) for path in [run_dir / EVENTS, *parts]}
    # Only of the workers that are in: one that left may have written its file as well.
    written = [unfinished / f"{name}.npz" for name in _names(workers)]
    for each in (run_dir / EVENTS, *parts, *copies):
        atomic_files.sync(each)
    state = State(
        version, minibatches, extents[EVENTS].rows, elapsed_ns, workers,
        {name: each.rows for name, each in extents.items() if name != EVENTS},
        {name: each.crc for name, each in extents.items()},
        {path.name: atomic_files.checksum_of(path) for path in sorted([*written, *copies])},
    )  # fmt: skip
    atomic_files.write_json(unfinished / "state.json", state._asdict())
    path = run_dir / FOLDER / f"{version:012d}"
    removal.clear(run_dir, f"{FOLDER}/{path.name}")
    if path.exists():  # the user's own files are in it
        for each in sorted(unfinished.iterdir(), key=lambda each: each.name == "state.json"):  # it vouches for the rest
            os.replace(each, path / each.name)
    else:
        os.replace(unfinished, path)
    atomic_files.sync(path.parent)
    earlier = [each for each in all_of(run_dir) if _version(each) <= version]
    for old in {*all_of(run_dir)} - {*earlier[-keep:]}:
        removal.clear(run_dir, f"{FOLDER}/{old.name}")
    return path


def all_of(run_dir: Path) -> list[Path]:
    """Those that were committed, oldest first; a file of them may have been damaged since."""
    return sorted((path for path in (run_dir / FOLDER).glob("[0-9]*") if path.name.isdecimal()), key=_version)


def _version(path: Path) -> int:
    return int(path.name)


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
            state = check(path)
            if to_go_on:
                _check_parts(run_dir, path, state)
        except ScenarioError as error:
            damaged.append(str(error))
        else:
            return path, damaged
    return None, damaged


def check(path: Path) -> State:
    """What the checkpoint is of; ScenarioError if one of its files is damaged, or is not the one that was written."""
    state = state_of(path)
    for name in _names(state.workers):
        read(path, name, state)
    return state


def _names(workers: list[int]) -> list[str]:
    return ["server", *(f"worker-{worker}" for worker in workers)]


def _check_parts(run_dir: Path, path: Path, state: State) -> None:
    """The rows and copies of parameters that it stands on."""
    try:
        for name, rows in {EVENTS: state.events, **state.rows}.items():
            folder = run_dir if name == EVENTS else run_dir / PARTS
            rowfile.check(folder / name, Extent(rows, state.row_checksums.get(name)))
        for name, seal in state.files.items():
            if fnmatch(name, COPIES):
                _read(run_dir / PARTS / name, seal)
    except ScenarioError as error:
        raise ScenarioError(f"{path}: no run can go on from it: {error}") from error


def state_of(path: Path) -> State:
    """What the checkpoint at `path` is of; ScenarioError if it cannot be read, or is not what was written."""
    stored = json_schemas.read_state(path / "state.json")
    return State(**{name: stored[name] for name in State._fields if name in stored})


def read(path: Path, name: str, state: State | None = None) -> Arrays:
    """The arrays of one file; ScenarioError if it is damaged, or not the one that was written."""
    files, file = (state or state_of(path)).files, path / f"{name}.npz"
    return _read(file, files.get(file.name)) if files else atomic_files.read_arrays(file)


def _read(file: Path, seal: str | None) -> Arrays:
    arrays = atomic_files.read_arrays(file)
    if atomic_files.checksum_of(file) != seal:
        raise atomic_files.damaged(file, "it is of another checkpoint")
    return arrays
