"""The SHA-256 of each of a run's files: the manifest holds them from the end of the run on, and readers check them.

A checksum inside a file reveals changed bytes; these hashes also reveal a missing file and another run's file of the
same name. The scenario is not among them: it is compared by its values, and may be commented. The logs are not either:
nothing reads them. The sizes are kept too: a file of another size is not read at all, however long it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, json_schemas

MANIFEST = "manifest.json"
HASHED = (
    "summary.json",
    "effects.parquet",
    "minibatches.parquet",
    "evals.parquet",
    "distances.parquet",
    "events.rows",
    "trace.json",
    "checkpoints/final.npz",
)


def seals(run_dir: Path) -> dict[str, dict[str, Any]]:
    """For the manifest, SHA-256 and size of each existing file of a run, by its name; each is synced to disk first."""
    there = [name for name in HASHED if (run_dir / name).is_file()]
    for name in there:
        atomic_files.sync(run_dir / name)
    return {
        "files": {name: atomic_files.sha256(run_dir / name) for name in there},
        "sizes": {name: (run_dir / name).stat().st_size for name in there},
    }


def check(run_dir: Path | str, name: str) -> bool:
    """True if the file is the one that the run wrote, ScenarioError if it is not, False if the manifest has no hash.

    There is no hash during the run, in runs of earlier versions, and in a folder without a manifest.
    """
    path = Path(run_dir) / name
    if not os.path.lexists(Path(run_dir) / MANIFEST):
        return False
    manifest = json_schemas.read_manifest(Path(run_dir) / MANIFEST)
    known, size = manifest.get("files", {}).get(name), manifest.get("sizes", {}).get(name)
    if known is None:
        return False
    if not os.path.lexists(path):
        raise ScenarioError(f"{path}: is missing, and the run wrote it")
    try:
        other_size = size is not None and path.is_file() and path.stat().st_size != size
        found = None if other_size else atomic_files.sha256(path)
    except OSError as error:
        raise atomic_files.damaged(path, error) from error
    if found != known:
        raise atomic_files.damaged(path, "it is not the file that the run wrote")
    return True
