"""The newest progress of a run as a small file in its directory, for whoever watches from elsewhere.

A folder that several hosts share is enough: there is no socket. The file is removed when the run ends; a run that dies
leaves it.
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from asgd_lab.backends.outcome import Progress, Watch, WorkerLook
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, removal
from asgd_lab.record.run import RunDirectory

FILE = "progress.json"
EVERY_S = 1.0


class Told(NamedTuple):
    """A progress with its number, from 1, and the host of the run."""

    number: int
    host: str
    progress: Progress


class ProgressFile:
    """Writes the progress of a run about once a second, and passes all on to `watch`."""

    def __init__(self, record: RunDirectory, watch: Watch | None) -> None:
        self._record, self._watch = record, watch
        self._number, self._due_s = 0, -math.inf

    def __call__(self, progress: Progress) -> None:
        if self._record.begun and time.monotonic() >= self._due_s:
            self._due_s, self._number = time.monotonic() + EVERY_S, self._number + 1
            told = {"number": self._number, "host": platform.node(), "progress": asdict(progress)}
            with contextlib.suppress(OSError):  # a full disk, a removed folder: the run itself reports them
                atomic_files.write_json(self._record.path / FILE, told, durable=False)
        if self._watch is not None:
            self._watch(progress)

    def remove(self) -> None:
        """The run has ended: its summary says more."""
        if self._number:
            with contextlib.suppress(OSError):
                removal.remove_file(self._record.path, FILE)


def read(run_dir: Path) -> Told | None:
    """The newest progress of the run; None if there is none, or none that can be read."""
    try:
        found = atomic_files.read_json(run_dir / FILE)
        values = found["progress"]
        workers = [WorkerLook(*each) for each in values.pop("workers")]
        values |= {name: math.nan if values[name] is None else values[name] for name in ("loss", "error")}
        return Told(found["number"], found["host"], Progress(**values, workers=workers))
    except (ScenarioError, KeyError, TypeError, AttributeError):
        return None
