"""Checkpoints of a run: folders that are complete or absent, and hold arrays and numbers only, never code.

`checkpoints/VERSION/` holds `server.npz` (the parameters and the rule's vectors), `worker-W.npz` for every worker that
had joined, and `state.json`: the number of events logged by then, the number of rows in each file of the run, and the
checksums of all these files.

A checkpoint is written in `checkpoints/unfinished-NUMBER/` and renamed when it is complete. An abandoned one is removed
even while a process still writes to it; its number, and so its folder, is never used again.
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
EVENTS, PARTS = "events.rows", "parts"  # in the run directory: the event log, and the rows of each process
ROW_FILES, COPIES = {".effects", ".minibatches", ".snapshots", ".distances"}, "*.*.npz"  # of parts


class State(NamedTuple):
    """The state of the run at a checkpoint: the content of its state.json."""

    version: int
    minibatches: int
    events: int  # of the event log; a run resumed from here discards the later ones
    elapsed_ns: int  # of the run's own clock
    workers: list[int]  # that had joined
    rows: dict[str, int]  # in each row file, by its name
    # Checksums of those rows and events, and of each file beside this one. Earlier versions wrote none.
    row_checksums: dict[str, int | None] = {}  # noqa: RUF012
    files: dict[str, str | None] = {}  # noqa: RUF012


def begin(run_dir: Path, number: int) -> None:
    """Make an empty folder for checkpoint `number`, a new number, and abandon earlier unfinished checkpoints."""
    abandon(run_dir)
    _unfinished(run_dir, number).mkdir(parents=True)


def abandon(run_dir: Path) -> None:
    """Remove all unfinished checkpoints."""
    for path in sorted((run_dir / FOLDER).glob(f"{UNFINISHED}*")):
        removal.clear(run_dir, f"{FOLDER}/{path.name}")


def write(run_dir: Path, number: int, name: str, arrays: Mapping[str, Any]) -> bool:
    """Write one file of checkpoint `number`, durably. Return False if that checkpoint has been abandoned."""
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

    The rows that it refers to are on the disk when this returns. Checkpoints of later versions are removed too: they
    belong to work that a resume has discarded, and their rows are gone.
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
    if path.exists():  # it holds files of the user's own
        for each in sorted(unfinished.iterdir(), key=lambda each: each.name == "state.json"):  # state.json comes last
            os.replace(each, path / each.name)
    else:
        os.replace(unfinished, path)
    atomic_files.sync(path.parent)
    earlier = [each for each in all_of(run_dir) if _version(each) <= version]
    for old in {*all_of(run_dir)} - {*earlier[-keep:]}:
        removal.clear(run_dir, f"{FOLDER}/{old.name}")
    return path


def all_of(run_dir: Path) -> list[Path]:
    """The folders of all committed checkpoints, oldest first; their files may have been damaged since."""
    return sorted((path for path in (run_dir / FOLDER).glob("[0-9]*") if path.name.isdecimal()), key=_version)


def _version(path: Path) -> int:
    return int(path.name)


def newest(run_dir: Path, to_resume: bool = False) -> Path | None:
    """The newest usable checkpoint, or None without any; ScenarioError if all are damaged. See `usable`."""
    found, damaged = usable(run_dir, to_resume)
    if found is None and damaged:
        raise ScenarioError("; ".join(damaged))
    return found


def usable(run_dir: Path, to_resume: bool = False) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint, and for each newer one a line that names the damage.

    With `to_resume` the rows that it refers to must be intact as well; a finished run no longer has them.
    """
    damaged: list[str] = []
    for path in reversed(all_of(run_dir)):
        try:
            state = check(path)
            if to_resume:
                _check_parts(run_dir, path, state)
        except ScenarioError as error:
            damaged.append(str(error))
        else:
            return path, damaged
    return None, damaged


def check(path: Path) -> State:
    """The checkpoint's state; ScenarioError if one of its files is damaged, or is not the file that was written."""
    state = state_of(path)
    for name in _names(state.workers):
        read(path, name, state)
    return state


def _names(workers: list[int]) -> list[str]:
    return ["server", *(f"worker-{worker}" for worker in workers)]


def _check_parts(run_dir: Path, path: Path, state: State) -> None:
    """ScenarioError unless the rows and copies of parameters that the checkpoint refers to are intact."""
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
    """The state of the checkpoint at `path`; ScenarioError if state.json is missing or damaged."""
    stored = json_schemas.read_state(path / "state.json")
    return State(**{name: stored[name] for name in State._fields if name in stored})


def read(path: Path, name: str, state: State | None = None) -> Arrays:
    """The arrays of one file; ScenarioError if it is damaged, or is not the file that was written."""
    files, file = (state or state_of(path)).files, path / f"{name}.npz"
    return _read(file, files.get(file.name)) if files else atomic_files.read_arrays(file)


def _read(file: Path, seal: str | None) -> Arrays:
    arrays = atomic_files.read_arrays(file)
    if atomic_files.checksum_of(file) != seal:
        raise atomic_files.damaged(file, "it is of another checkpoint")
    return arrays
