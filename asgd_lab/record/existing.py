"""The run that exists already where a run is to go, for commands that resume. This file only reads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from asgd_lab.errors import ScenarioError
from asgd_lab.record import removal
from asgd_lab.record.directory_locks import locked
from asgd_lab.record.run import mark, read_manifest

CLAIM = {"scenario.yaml", "manifest.json.new"}  # the files of a run that was killed before it had its manifest


State = Literal["nothing", "claimed", "unfinished", "done"]


def existing_run(path: Path) -> State:
    """The progress of the run at `path`; ScenarioError if it is still running, or if `path` holds anything else.

    A run that was killed as it began left only a claim: scenario.yaml, which may be empty.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, "--resume"))
        except FileNotFoundError:
            if os.path.islink(path):
                raise ScenarioError(f"--resume: {path} is a broken symbolic link; choose another --out") from None
            return "nothing"
        return _existing_run(path)


def _existing_run(path: Path) -> State:
    try:
        names = {each.name for each in path.iterdir()}
    except OSError as error:
        raise ScenarioError(f"--resume: {path} cannot be read: {error.strerror}; choose another --out") from None
    if not names:
        return "nothing"
    claimed = "scenario.yaml" in names and names <= CLAIM
    files = ["scenario.yaml"] if claimed else ["scenario.yaml", "manifest.json"]
    for name in files:
        if not (path / name).is_file():
            what = f"it has no plain file {name}"
            raise ScenarioError(f"--resume: {path} holds something else than this run; choose another --out ({what})")
    if not claimed and read_manifest(path).get("status") == "done":
        return "done"
    removal.check(path)
    return "claimed" if claimed else "unfinished"


def abandoned(run_dir: Path, failure: str) -> None:
    """Write into a run's manifest why its process died, since that process could not."""
    if (run_dir / "manifest.json").exists():
        mark(run_dir, "failed", failure=failure)
