"""Recorded runs as scalars for TensorBoard: losses, errors, staleness and held-out metrics, over each run's clock.

A run has one event file of a fixed name in one folder, which a text file beside it claims for this run. A second export
replaces the first, and no folder holds the curves of two runs. Other files stay.

Needs the extra `tensorboard` (the package tensorboardX, which writes the files without TensorBoard itself).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asgd_lab.errors import ScenarioError
from asgd_lab.loggers.tensorboard_files import EventFile, TensorBoard
from asgd_lab.record import atomic_files, tables
from asgd_lab.record.directory_locks import locked
from asgd_lab.record.run import read_summary
from asgd_lab.record.scalar_curves import REPLICA, Curves, Point

if TYPE_CHECKING:
    import pandas as pd

EVENTS = "events.out.tfevents.0000000000.asgd-lab"
CLAIM = "asgd-lab-run.txt"  # the absolute path of the run whose curves lie beside it
MOST_PATH = 1 << 16


class Written(NamedTuple):
    """The result for one run: the number of its scalars and their folder, or the reason for none."""

    run_dir: Path
    folder: Path | None
    scalars: int = 0
    why: str = ""


def write(path: Path, out: Path) -> Iterator[Written]:
    """Write the scalars of the run `path`, or of every run below it, into folders of `out` named after the runs.

    A run that cannot be read is left out, with a reason; if it is `path` itself, a ScenarioError is raised.
    """
    try:
        TensorBoard.check()
    except ScenarioError as error:
        raise ScenarioError(f"tensorboard: {error}") from None
    try:
        found = list(runs(path))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    if not found:
        what = "holds no run; name the directory of a run or of a sweep" if path.is_dir() else "is not a directory"
        raise ScenarioError(f"{path}: {what}")
    claimed = dict(_claims(out))
    for run_dir in found:
        try:
            began_s, points = _began_s(run_dir), list(_points(run_dir))
        except ScenarioError as error:
            if run_dir == path:
                raise
            yield Written(run_dir, None, why=str(error))
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
            with locked(out, "--out"):  # two commands at once write each run's curves one after the other
                folder = _claimed(run_dir, out, claimed)
                count = _write(points, began_s, folder)
        except OSError as error:
            raise ScenarioError(f"--out: {error.filename or out} cannot be written: {error.strerror}") from None
        yield Written(run_dir, folder, count)


def runs(path: Path) -> Iterator[Path]:
    """`path` if it is a run, else all runs below it, by name. Links to runs are followed, links to folders are not."""
    if _is_run(path):
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.is_symlink() or _is_run(child):
                yield from runs(child)


def _is_run(path: Path) -> bool:
    """Whether the folder is a run, even one without a manifest, which is reported later."""
    return any(os.path.lexists(path / name) for name in ("manifest.json", "summary.json"))


def _claimed(run_dir: Path, out: Path, claimed: Mapping[Path | None, Path]) -> Path:
    """The folder of this run: the one claimed for it already; else one named by its path below the current directory,
    or by its absolute path, with a number if that is taken. A link to a run is that run.
    """
    absolute = Path(os.path.realpath(run_dir))
    if (known := claimed.get(absolute)) is not None and _is_free(known, absolute):
        return known
    here = Path.cwd()
    name = absolute.relative_to(here) if absolute.is_relative_to(here) else absolute.relative_to(absolute.anchor)
    last = name.name or "run"  # "" for the current directory itself, and for the root
    number = 1
    while True:
        folder = out / name.parent / (last if number == 1 else f"{last}-{number}")
        if _is_free(folder, absolute):
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / CLAIM, f"{absolute}\n".encode(errors="surrogateescape"))
            return folder
        number += 1


def _is_free(folder: Path, run_dir: Path) -> bool:
    """Whether the folder has no curves of another existing run, nor of another program."""
    if any(path.name != EVENTS for path in folder.glob("*tfevents*")):
        return False
    owner = _owner(folder / CLAIM)
    return owner is None or owner == run_dir or not owner.exists()


def _claims(out: Path) -> Iterator[tuple[Path | None, Path]]:
    """Each run with curves below `out`, and their folder; of several folders the first by name comes last."""
    for claim in sorted(out.rglob(CLAIM), reverse=True):
        with contextlib.suppress(OSError):  # an unreadable claim is none
            yield _owner(claim), claim.parent


def _owner(claim: Path) -> Path | None:
    """The real path of the run that the folder is claimed for."""
    try:
        written = atomic_files.read_bytes(claim, MOST_PATH).decode(errors="surrogateescape").removesuffix("\n")
        return Path(os.path.realpath(written))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(points: Sequence[Point], began_s: float, folder: Path) -> int:
    """Write one event file, whole or not at all; return its number of scalars."""
    unfinished = folder / f".{CLAIM}.new"
    file = EventFile(unfinished, began_s)
    for point in points:
        file.add(point)
    file.close()
    os.replace(unfinished, folder / EVENTS)
    return len(points)


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _points(run_dir: Path) -> Iterator[Point]:
    """The points of a run's curves: those of all workers together, and each worker's in the group `workers`."""
    minibatches = tables.read(run_dir, "minibatches").sort_values("time_s", kind="stable")
    curves = Curves(minibatches["worker"].nunique())
    for row in _rows(minibatches, "worker", "step", "time_s", "loss", "error"):
        yield from curves.minibatch(*row)
    effects = tables.read(run_dir, "effects")
    pushes = effects[effects["kind"] == "push"].sort_values("end_s", kind="stable")
    for row in _rows(pushes, "version", "end_s", "staleness"):
        yield from curves.push(*row)
    yield from curves.rest()
    evals = tables.read(run_dir, "evals").sort_values("time_s", kind="stable")
    replicas = Curves(evals["parameters"][evals["parameters"].str.startswith(REPLICA)].nunique())
    for row in _rows(evals, "minibatches", "time_s", "parameters", "split", "metric", "value"):
        yield from replicas.evaluation(*row)
    yield from replicas.rest()


def _rows(table: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[column].tolist() for column in columns), strict=True)


def _began_s(run_dir: Path) -> float:
    """The Unix time at which a real run began, in seconds; 0 for a run in virtual time."""
    try:
        return float(read_summary(run_dir).get("started_unix_s") or 0.0)
    except ValueError as error:
        raise ScenarioError(f"{run_dir}: is not a finished run: {error}") from None
