"""The run directory: opened before anything is learned, finished whatever happened.

A file in it is complete or absent, except the tables' journals (see tables.py); a directory that holds anything is
refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError
from asgd_lab.record import checkpoints, machine, trace
from asgd_lab.record.tables import DISTANCES, EFFECTS, EVALS, MINIBATCHES, NoRows, Recording, Rows

Status = Literal["done", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run's open directory; `effects` and `minibatches` are for the rounds that `recording` keeps."""

    path: Path
    recording: Recording
    effects: Rows | NoRows
    minibatches: Rows | NoRows
    evals: Rows
    distances: Rows | None

    @classmethod
    def create(
        cls, path: Path | str, scenario_yaml: str, *, record: str = "all", facts: Mapping[str, Any] | None = None,
        distances: bool = False,
    ) -> RunDirectory:  # fmt: skip
        """Take or make the empty directory `path`; ScenarioError if it holds anything. `facts` join the manifest."""
        path = Path(path)
        _claim(path, scenario_yaml)
        return cls._opened(path, record, facts or {}, distances)

    @classmethod
    def go_on(
        cls, path: Path, *, record: str = "all", facts: Mapping[str, Any] | None = None, distances: bool = False
    ) -> RunDirectory:
        """Take the directory of the same run, which has not come to its end; what was made of its rows is made anew."""
        earlier = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        for table in (EFFECTS, MINIBATCHES, EVALS, DISTANCES):
            for file in (table.file(path), table.file(path).with_suffix(".parquet.part")):
                file.unlink(missing_ok=True)
        resumed = [*earlier.get("resumed", []), {"after": earlier.get("status"), "at": _now()}]
        facts = {**(facts or {}), "created": earlier.get("created"), "resumed": resumed}
        return cls._opened(path, record, facts, distances)

    @classmethod
    def _opened(cls, path: Path, record: str, facts: Mapping[str, Any], distances: bool) -> RunDirectory:
        manifest = {
            "status": "running",
            "created": _now(),
            **facts,
            "versions": machine.versions(),
            "machine": machine.machine(),
            "arithmetic": machine.arithmetic(),
            "commit": machine.commit(),
        }
        _write_json(path / "manifest.json", manifest)
        recording = Recording.named(record)
        rows = Rows if recording.every else NoRows
        effects, minibatches = (rows(table.file(path), table) for table in (EFFECTS, MINIBATCHES))
        far = Rows(DISTANCES.file(path), DISTANCES) if distances else None
        return cls(path, recording, effects, minibatches, Rows(EVALS.file(path), EVALS), far)

    def finish(self, summary: Mapping[str, Any], status: Status, params: npt.NDArray[np.float32] | None) -> None:
        """Write all that is still missing: tables, final parameters, summary, trace, and the manifest's status.

        For a run that was interrupted or failed too. Each part is written though an earlier one could not be (a full
        disk, a Ctrl-C); the first failure is raised at the end, and the manifest does not call such a run done. A
        number that is not finite becomes null in summary.json.
        """

        def seal(kind: type[BaseException] | None, *_: object) -> None:
            torn: Status = "interrupted" if kind is KeyboardInterrupt else "failed"
            mark(self.path, torn if kind is not None and status == "done" else status)

        with ExitStack() as parts:  # runs its callbacks last to first, each whatever the others raise
            parts.push(seal)
            parts.callback(trace.write, self.path)
            parts.callback(_write_json, self.path / "summary.json", {"status": status, **summary})
            if params is not None:
                parts.callback(_write_params, self.path, params)
            for rows in (self.effects, self.minibatches, self.evals, self.distances):
                if rows is not None:
                    parts.callback(rows.close)

    def leave(self, failure: str) -> None:
        """Go, having written nothing: the run cannot be gone on with. Tables are made again when it can be."""
        for rows in (self.effects, self.minibatches, self.evals, self.distances):
            if rows is not None:
                rows.close()
        mark(self.path, "interrupted", failure=failure)


def mark(run_dir: Path, status: Status, **facts: Any) -> None:
    """Write into a run's manifest how it ended, and when. `facts` join it."""
    path = run_dir / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, {**manifest, "status": status, **facts, "finished": _now()})


def default_directory(scenario_name: str, root: Path | str = "runs") -> Path:
    """Make and return a new directory `root/NAME/YYYYmmdd-HHMMSS[-k]`; two runs that start together get two."""
    parent = Path(root) / file_name(scenario_name)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        path = parent / (f"{stamp}-{number}" if number else stamp)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise _unusable(path, error) from None
        else:
            return path


def file_name(text: str) -> str:
    """A name as one component of a path: itself where that is safe, else what is safe of it and a hash of the whole."""
    safe = re.sub(r"[^\w.,=+@-]+", "-", text).strip("-.")
    safe = safe.encode()[:200].decode(errors="ignore")  # file systems count bytes
    if safe and safe == text:
        return safe
    return f"{safe or 'run'}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def final_params(run_dir: Path | str) -> npt.NDArray[np.float32]:
    """The final server parameters of a finished run, flat."""
    path = Path(run_dir) / "checkpoints" / "final.npz"
    try:
        with np.load(path) as archive:
            return np.asarray(archive["params"], dtype=np.float32)
    except FileNotFoundError:
        raise ScenarioError(f"{run_dir}: has no final parameters (checkpoints/final.npz is missing)") from None


def saved_params(path: Path | str) -> npt.NDArray[np.float32]:
    """The server's parameters in the directory of a run, final or its last checkpoint's, or in a checkpoint."""
    path = Path(path)
    if (path / "checkpoints" / "final.npz").exists():
        return final_params(path)
    checkpoint = path if (path / "server.npz").exists() else checkpoints.newest(path)
    if checkpoint is None:
        raise ScenarioError(f"{path}: has neither final parameters nor a checkpoint")
    arrays = checkpoints.read(checkpoint, "server")
    if "params" not in arrays:
        raise ScenarioError(f"{checkpoint}: is of a run without parameters")
    return np.asarray(arrays["params"], dtype=np.float32)


def read_summary(run_dir: Path | str) -> dict[str, Any]:
    """The summary of a finished run."""
    try:
        summary: dict[str, Any] = json.loads((Path(run_dir) / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScenarioError(f"{run_dir}: is not a finished run; summary.json is missing") from None
    return summary


def _claim(path: Path, scenario_yaml: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ScenarioError(f"--out: {path} is not empty; choose another")
        # "x": of two runs that found the directory empty at the same moment, one gets it.
        with (path / "scenario.yaml").open("x", encoding="utf-8") as file:
            file.write(scenario_yaml)
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> ScenarioError:
    if isinstance(error, FileExistsError) and path.is_dir():
        return ScenarioError(f"--out: {path} is not empty; choose another")
    return ScenarioError(f"--out: {path} cannot be used: {error.strerror}; choose a directory that can be written")


def _write_params(path: Path, params: npt.NDArray[np.float32]) -> None:
    archive = io.BytesIO()
    np.savez(archive, params=params)
    (path / "checkpoints").mkdir(exist_ok=True)
    _write_whole(path / "checkpoints" / "final.npz", archive.getbuffer())


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=str)
    _write_whole(path, f"{text}\n".encode())


def _write_whole(path: Path, content: bytes | memoryview) -> None:
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _finite(value: Any) -> Any:
    """JSON knows no infinity and no NaN: they become null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
