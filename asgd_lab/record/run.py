"""The run directory: opened before the run starts, finished however it ends.

A file in it is complete or absent, except the tables' journals (see tables.py); a directory that holds anything is
refused.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record import atomic_files, file_hashes, json_schemas, machine, provenance, removal, saved_model, trace
from asgd_lab.record.columns import DISTANCES, EFFECTS, EVALS, MINIBATCHES, TABLES, Row, Table
from asgd_lab.record.directory_locks import OpenDirectory, check_empty, unusable
from asgd_lab.record.tables import HeardRows, NoRows, Recording, Rows

Status = Literal["done", "interrupted", "failed"]
SEMANTICS = 2  # see `backends.earlier`: raised when a recorded scenario would be another run
_OF_WHAT_IT_WAS = ("explain.json", "explain.parquet", "explain-pushes.parquet")
"""Files of other commands about the run as it was before it went on."""
Beginning = Literal["new", "restart", "resume"]


class Hearer(Protocol):
    """Somebody who hears of the run's rows while it goes on."""

    def begin(self) -> None:
        """Called when the run begins."""

    def hear(self, table: str, rows: Sequence[Row]) -> None:
        """Called with new rows of a table, times in nanoseconds."""

    def follow(self, source: Any) -> None:
        """Called with the source of rows that processes write into files: see `loggers.live`."""

    def last(self) -> None:
        """Called before these files are removed."""


class RunDirectory:
    """One run's directory; `effects` and `minibatches` take the rows of the rounds that `recording` keeps.

    Before `begin`, the directory is not touched and the tables do not exist. A `hearer` is set before.
    """

    effects: Rows | NoRows | HeardRows
    minibatches: Rows | NoRows | HeardRows
    evals: Rows | HeardRows
    distances: Rows | None
    hearer: Hearer | None = None

    def __init__(
        self, path: Path, scenario_yaml: str, *, record: str = "all", facts: Mapping[str, Any] | None = None,
        distances: bool = False, beginning: Beginning = "new", inputs: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:  # fmt: skip
        """ScenarioError if the run is `new` and `path` holds anything. `facts` join the manifest; so does the result of
        `inputs`, the digests of the run's inputs, which is called when the run begins."""
        self.path, self.recording, self.begun = path, Recording.named(record), False
        self._scenario_yaml, self._facts, self._far, self.beginning = scenario_yaml, facts or {}, distances, beginning
        self._inputs = inputs
        self._rows: list[Rows] = []
        self._place: OpenDirectory | None = None
        self._buffers: dict[str, npt.NDArray[Any]] = {}
        if beginning == "new":
            try:
                check_empty(path, "--out")
            except OSError as error:
                raise unusable(path, "--out", error) from None

    @classmethod
    def create(
        cls, path: Path | str, scenario_yaml: str, *, record: str = "all", facts: Mapping[str, Any] | None = None,
        distances: bool = False,
    ) -> RunDirectory:  # fmt: skip
        """Make the directory, if there is none, and begin a new run in it."""
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(path, "--out", error) from None
        directory = cls(path, scenario_yaml, record=record, facts=facts, distances=distances)
        directory.begin()
        return directory

    def begin(self, early: bool = False) -> None:
        """Write the first files of the run. A restarted run loses the files of its earlier attempt; a resumed one loses
        the tables and the summary, which are made again from its rows, and explanations of its beginning. A second call
        does nothing.

        A run that has ended `early` has not read all its inputs.
        """
        if self.begun:
            return
        path, facts = self.path, dict(self._facts)
        self._place = self._place or OpenDirectory(path)
        if not early:
            facts["inputs"] = self._inputs()
        if self.beginning == "resume":
            earlier = read_manifest(path)
            for table in TABLES.values():
                for suffix in ("", ".part"):
                    removal.remove_file(path, f"{table.name}.parquet{suffix}")
            for name in ("summary.json", "trace.json", "checkpoints/final.npz", *_OF_WHAT_IT_WAS):
                removal.remove_file(path, name)
            removal.remove_reports(path)
            resumed = [*earlier.get("resumed", []), {"after": earlier.get("status"), "at": _now()}]
            facts |= {"created": earlier.get("created"), "resumed": resumed}
        else:
            if self.beginning == "restart":
                removal.clear(path)
            _claim(path, self._scenario_yaml)
        manifest = {
            "status": "running",
            "semantics": SEMANTICS,
            "created": _now(),
            **facts,
            "versions": machine.versions(),
            "machine": machine.machine(),
            "arithmetic": machine.arithmetic(),
            "commit": machine.commit(),
            "signature": provenance.signature(facts.get("scenario_sha256", ""), facts.get("inputs", {})),
        }
        try:
            atomic_files.write_json(path / "manifest.json", manifest)
        except OSError:
            if self.beginning != "resume":
                removal.clear(path)
            raise
        self.begun = True
        if self.recording.every:
            self.effects, self.minibatches = self._heard(EFFECTS), self._heard(MINIBATCHES)
        else:
            self.effects, self.minibatches = (NoRows(each.file(path), each) for each in (EFFECTS, MINIBATCHES))
        self.distances = self._kept(DISTANCES) if self._far else None
        self.evals = self._heard(EVALS)
        if self.hearer is not None:
            self.hearer.begin()

    def _heard(self, table: Table) -> Rows | HeardRows:
        rows = self._kept(table)
        return rows if self.hearer is None else HeardRows(rows, table.name, self.hearer.hear)

    def _kept(self, table: Table) -> Rows:
        rows = Rows(table.file(self.path), table)
        self._rows.append(rows)
        return rows

    def save_params(
        self, params: npt.NDArray[np.float32], buffers: Mapping[str, npt.NDArray[Any]] | None = None
    ) -> None:
        """Write the final parameters and the buffers they are evaluated with, before any step that may fail.

        `buffers` are the first worker's, by their names in the model; the server has none.
        """
        self._buffers = dict(buffers or {})
        if self.lost() is None:  # a directory that is there by now may be the user's
            saved_model.write(self.path, params, self._buffers)

    def withdraw(self, failure: str) -> None:
        """Remove the files of a run that cannot start. Files that an earlier command recorded stay."""
        if not self.begun:
            return
        with contextlib.suppress(OSError):
            for rows in self._rows:
                rows.close()
        if self.beginning == "resume":
            mark(self.path, "interrupted", failure=failure)
        else:
            removal.clear(self.path)

    def finish(self, summary: Mapping[str, Any], status: Status, params: npt.NDArray[np.float32] | None) -> None:
        """Write the missing files: tables, final parameters, summary, trace, and the manifest's status.

        Runs that were interrupted or failed are finished too. A file that cannot be written (a full disk, a Ctrl-C)
        does not stop the others; the first failure is raised at the end, and the manifest does not call such a run
        done. A number that is not finite becomes null in summary.json. RunFailed if the directory was moved or removed.
        """
        if self._place is not None and (lost := self.lost()) is not None:
            with contextlib.suppress(OSError, ScenarioError):
                mark(self._place.current_path, "failed", failure=lost)
            raise RunFailed(lost)
        parts: list[Callable[[], object]] = [rows.close for rows in self._rows]
        if params is not None:
            parts.append(functools.partial(saved_model.write, self.path, params, self._buffers))
        parts.append(
            functools.partial(atomic_files.write_json, self.path / "summary.json", {"status": status, **summary})
        )
        parts.append(functools.partial(trace.write, self.path))
        torn: list[BaseException] = []
        for part in parts:
            try:
                part()
            except (Exception, KeyboardInterrupt) as error:
                torn.append(error)
        if torn and status == "done":
            status = "interrupted" if any(isinstance(each, KeyboardInterrupt) for each in torn) else "failed"
        try:
            mark(self.path, status)
        except (Exception, KeyboardInterrupt) as error:
            torn.append(error)
        if torn and isinstance(torn[0], ScenarioError):  # about a file that this run has just written
            raise RunFailed(str(torn[0])) from torn[0]
        if torn:
            raise torn[0]

    def lost(self) -> str | None:
        """A line on the directory's removal or new path; None while it is where the run began."""
        return None if self._place is None else self._place.lost()


def mark(run_dir: Path, status: Status, **facts: Any) -> None:
    """Write into a run's manifest its status, the time, and the hashes of its files. `facts` join it."""
    manifest = read_manifest(run_dir)
    ended = {"status": status, **facts, "finished": _now()}
    try:
        atomic_files.write_json(run_dir / "manifest.json", {**manifest, **ended, **file_hashes.seals(run_dir)})
    except OSError:  # a full disk: without indentation the text fits into the space of the running run's manifest
        atomic_files.overwrite_json(run_dir / "manifest.json", {**manifest, **ended, "status": "failed"})
        raise


def read_summary(run_dir: Path | str) -> dict[str, Any]:
    """The summary of a finished run; ScenarioError if it is missing or damaged."""
    path = Path(run_dir) / "summary.json"
    if not file_hashes.check(run_dir, path.name) and not os.path.lexists(path):
        raise ScenarioError(f"{run_dir}: is not a finished run; summary.json is missing")
    return json_schemas.read_summary(path)


def read_results(run_dir: Path | str) -> dict[str, Any]:
    """The summary of a run that has numbers; ScenarioError if there is none, or if the run failed before it had any."""
    found = read_summary(run_dir)
    if "updates" not in found:
        raise ScenarioError(f"{run_dir}: has no numbers; it failed: {found.get('failure', 'nobody knows why')}")
    return found


def read_numbers(run_dir: Path | str) -> dict[str, Any]:
    """The summary of a finished run, with NaN in the place of final numbers that were not finite."""
    found = read_summary(run_dir)
    final = {name: math.nan if value is None else value for name, value in found.get("final", {}).items()}
    return {**found, "final": final}


def read_manifest(run_dir: Path | str) -> dict[str, Any]:
    """The manifest of a run; ScenarioError if it is missing or damaged."""
    path = Path(run_dir) / "manifest.json"
    if not os.path.lexists(path):
        found = Path(run_dir).glob("*/manifest.json") if os.path.isdir(run_dir) else ()  # a name may be too long
        inside = sorted(each.parent for each in found)
        what = "is the directory of a sweep" if os.path.exists(Path(run_dir) / "sweep.json") else "has runs inside"
        hint = f"; it {what}: give one of its runs, such as {inside[0]}" if inside else "; manifest.json is missing"
        raise ScenarioError(f"{run_dir}: is not a run directory{hint}")
    return json_schemas.read_manifest(path)


def _claim(path: Path, scenario_yaml: str) -> None:
    try:
        # "x": if two runs found the directory empty at the same moment, only one gets it.
        with (path / "scenario.yaml").open("x", encoding="utf-8") as file:
            try:
                file.write(scenario_yaml)
                file.flush()
            except OSError:
                removal.remove_file(path, "scenario.yaml")
                raise
    except FileExistsError:
        raise ScenarioError(f"--out: {path} is not empty; choose another") from None
    except OSError as error:
        raise unusable(path, "--out", error) from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
