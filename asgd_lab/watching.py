"""Watches the run of another process, terminal or host from its directory; nothing is printed or written."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from asgd_lab import arguments
from asgd_lab.arguments import AnyPath
from asgd_lab.backends import progress_file
from asgd_lab.backends.outcome import Progress
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record.directory_locks import in_use
from asgd_lab.record.run import read_manifest
from asgd_lab.runs import Run

POLL_S = 0.5
STILL_S = 3.0  # without a new progress, after which the directory's lock is tried


def watch(run: Run | AnyPath) -> Iterator[Progress]:
    """Yield each new `Progress` of a run that another process carries out, until the run ends.

    The directory may be on a file system that several hosts share. A run that has ended yields nothing: see its
    `status` and `summary`. `RunFailed` says that the run died without finishing.
    """
    with arguments.named_as_in_python():
        path = run.path if isinstance(run, Run) else arguments.path("run", run)
        check(path)
    return looks(path)


def check(path: Path) -> None:
    """ScenarioError unless this is the directory of a run."""
    if not os.path.lexists(path / "manifest.json") and os.path.lexists(path / "sweep.json"):
        raise ScenarioError(f"{path}: is the directory of a sweep; name the directory of one of its runs")
    Run.open(path)


def looks(path: Path) -> Iterator[Progress]:
    """As `watch`, of a directory that was checked."""
    number, since_s = 0, time.monotonic()
    while read_manifest(path)["status"] == "running":
        told = progress_file.read(path)
        if told is not None and told.number != number:
            number, since_s = told.number, time.monotonic()
            yield told.progress
        elif time.monotonic() - since_s > STILL_S and _has_died(path, told):
            if read_manifest(path)["status"] != "running":  # it has ended meanwhile
                return
            after = "" if told is None else f" after {told.progress.minibatches:,} minibatches"
            raise RunFailed(f"{path}: the run died without finishing{after}; what was recorded is kept", run_dir=path)
        time.sleep(POLL_S)


def _has_died(path: Path, told: progress_file.Told | None) -> bool:
    """Whether no process has the directory any more. The locks of another host may not be seen here."""
    if told is not None and told.host != platform.node():
        return False
    return in_use(path) is False
