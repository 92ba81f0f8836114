"""What stands where a run is to go: for those who come back to a directory. A finished run is never removed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from asgd_lab.errors import ScenarioError
from asgd_lab.record.run import mark

CLAIM = {"scenario.yaml", "manifest.json.new"}  # all that is there of a run killed before it had its manifest


@contextlib.contextmanager
def going_on(run_dir: Path) -> Iterator[None]:
    """Hold the run as one that goes on. The kernel lets go of it with the process, however that ends."""
    with (run_dir / "scenario.yaml").open("rb") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def standing(path: Path, scenario_yaml: str) -> Literal["nothing", "unfinished", "done"]:
    """How far this scenario's run at `path` has come; ScenarioError if anything else is there. Nothing is changed."""
    try:
        names = {each.name for each in path.iterdir()}
    except FileNotFoundError:
        return "nothing"
    except OSError as error:
        raise ScenarioError(f"--resume: {path} cannot be read: {error.strerror}; choose another --out") from None
    if not names:
        return "nothing"
    claimed = "scenario.yaml" in names and names <= CLAIM
    if not claimed and not {"scenario.yaml", "manifest.json"} <= names:
        raise ScenarioError(f"--resume: {path} holds something else than this run; choose another --out")
    recorded = (path / "scenario.yaml").read_bytes()
    if recorded != scenario_yaml.encode() and not (claimed and not recorded):
        raise ScenarioError(f"--resume: {path} holds a run of another scenario; choose another --out")
    if not _is_free(path):
        raise ScenarioError(f"--resume: the run in {path} is still going on; wait for its end, or end it")
    if not claimed and json.loads((path / "manifest.json").read_text(encoding="utf-8")).get("status") == "done":
        return "done"
    if any(path.glob("*/**/manifest.json")):
        raise ScenarioError(f"--resume: {path} is unfinished, and holds other runs; move them elsewhere")
    return "unfinished"


def clear(path: Path, scenario_yaml: str) -> None:
    """Make room for the run to be done again; one that is done, or is another's, stays."""
    if standing(path, scenario_yaml) == "unfinished":
        shutil.rmtree(path)


def abandoned(run_dir: Path, failure: str) -> None:
    """Say in the manifest of a run whose process died why it did, since it could not say so itself."""
    if (run_dir / "manifest.json").exists():
        mark(run_dir, "failed", failure=failure)


def _is_free(run_dir: Path) -> bool:
    with (run_dir / "scenario.yaml").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
