"""Recorded runs as scalars for TensorBoard: losses, errors, staleness and held-out metrics, over each run's clock.

A run has one event file of a fixed name in one folder, which a text file beside it claims for this run. A second export
replaces the first, and no folder holds the curves of two runs. Other files stay.

Needs the extra `tensorboard` (the package tensorboardX, which writes the files without TensorBoard itself).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, tables
from asgd_lab.record.directory_locks import locked
from asgd_lab.record.run import read_summary

if TYPE_CHECKING:
    import pandas as pd

EVENTS = "events.out.tfevents.0000000000.asgd-lab"
CLAIM = "asgd-lab-run.txt"  # the absolute path of the run whose curves lie beside it
MOST_PATH = 1 << 16
REPLICA = "replica-"


class Written(NamedTuple):
    """The result for one run: the number of its scalars and their folder, or the reason for none."""

    run_dir: Path
    folder: Path | None
    scalars: int = 0
    why: str = ""


class Curve(NamedTuple):
    """A tag, and the columns of `rows` with its steps, seconds and values."""

    tag: str
    rows: pd.DataFrame
    step: str
    time: str
    value: str


def write(path: Path, out: Path) -> Iterator[Written]:
    """Write the scalars of the run `path`, or of every run below it, into folders of `out` named after the runs.

    A run that cannot be read is left out, with a reason; if it is `path` itself, a ScenarioError is raised.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        message = "tensorboard: needs the package tensorboardX: pip install tensorboardX"
        raise ScenarioError(message) from None
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
            began_s, curves = _began_s(run_dir), list(_curves(run_dir))
        except ScenarioError as error:
            if run_dir == path:
                raise
            yield Written(run_dir, None, why=str(error))
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
            with locked(out, "--out"):  # two commands at once write each run's curves one after the other
                folder = _claimed(run_dir, out, claimed)
                count = _write(curves, began_s, folder)
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


def _write(curves: list[Curve], began_s: float, folder: Path) -> int:
    """Write one event file, whole or not at all; return its number of scalars."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar

    unfinished, count = folder / f".{CLAIM}.new", 0
    writer = RecordWriter(str(unfinished))
    writer.write(Event(wall_time=began_s, file_version="brain.Event:2").SerializeToString())
    for tag, rows, step, time, value in curves:
        kept = rows.dropna(subset=[value])
        for at, when, what in zip(kept[step], kept[time], kept[value], strict=True):
            event = Event(wall_time=began_s + float(when), step=int(at), summary=scalar(tag, float(what)))
            writer.write(event.SerializeToString())
        count += len(kept)
    writer.close()
    os.replace(unfinished, folder / EVENTS)
    return count


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _curves(run_dir: Path) -> Iterator[Curve]:
    """The curves of a run: those of all workers together, and each worker's in the group `workers`."""
    minibatches = tables.read(run_dir, "minibatches")
    mean = _mean_of_minibatches(minibatches)
    for value in ("loss", "error"):
        yield Curve(f"{value}/mean", mean, "minibatches", "time_s", value)
        for worker, rows in minibatches.groupby("worker"):
            yield Curve(f"workers/{value}/{worker!s}", rows, "step", "time_s", value)
    effects = tables.read(run_dir, "effects")
    pushes = effects[(effects["kind"] == "push") & (effects["version"] > 0)].sort_values("end_s")
    yield Curve("staleness", pushes, "version", "end_s", "staleness")
    evals = tables.read(run_dir, "evals")
    for measure, of_all in evals.groupby(evals["split"] + "_" + evals["metric"]):
        name = str(measure)  # the split and the metric
        of_replicas = of_all["parameters"].str.startswith(REPLICA)
        if of_replicas.any():
            mean = _mean_of_replicas(of_all[of_replicas])
            yield Curve(f"{name}/replicas_mean", mean, "minibatches", "time_s", "value")
        for whose, rows in of_all.groupby("parameters"):
            place = str(whose).removeprefix(REPLICA)
            tag = f"workers/{name}/{place}" if place != whose else f"{name}/{place}"
            yield Curve(tag, rows, "minibatches", "time_s", "value")


def _mean_of_minibatches(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over groups of consecutive minibatches in time, as many as there are workers.

    The column `minibatches` counts those of all workers by then, recorded or not: workers count their steps from 0.
    """
    rows = rows.sort_values("time_s", kind="stable", ignore_index=True)
    rows["minibatches"] = rows.groupby("worker")["step"].diff().fillna(rows["step"] + 1).cumsum()
    together = rows.groupby(rows.index // max(1, rows["worker"].nunique()))
    return together.agg({"minibatches": "last", "time_s": "last", "loss": "mean", "error": "mean"})


def _mean_of_replicas(rows: pd.DataFrame) -> pd.DataFrame:
    """The means of the replicas' first evaluations, of their second ones, and so on; their times are averaged too."""
    rows = rows.sort_values("time_s", kind="stable")
    nth = rows.groupby("parameters").cumcount()
    return rows.groupby(nth)[["minibatches", "time_s", "value"]].mean()


def _began_s(run_dir: Path) -> float:
    """The Unix time at which a real run began, in seconds; 0 for a run in virtual time."""
    try:
        return float(read_summary(run_dir).get("started_unix_s") or 0.0)
    except ValueError as error:
        raise ScenarioError(f"{run_dir}: is not a finished run: {error}") from None
