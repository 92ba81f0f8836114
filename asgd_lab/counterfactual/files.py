"""The files of an explanation, `explain*` in a folder: whether they can be written there, and their writing."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files

JSON, PARQUET, LOOKS = "explain.json", "explain.parquet", "explain-pushes.parquet"


def check(folder: Path) -> None:
    """A `ScenarioError` if the files cannot be written into the folder, which need not be there; nothing is made."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
        for name in (JSON, PARQUET, LOOKS):
            if (folder / name).is_dir():
                raise ScenarioError(f"{folder / name}: is a folder; move it elsewhere")
    except (OSError, ValueError) as error:
        raise _unwritable(folder, error) from None


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        return _nearest(folder.parent)
    return folder


def write(folder: Path, summary: Mapping[str, Any], frame: pd.DataFrame, looks: pd.DataFrame) -> list[Path]:
    """Write the three files, and return their paths; a `ScenarioError` if that cannot be."""
    check(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in ((PARQUET, frame), (LOOKS, looks)):
            table = io.BytesIO()
            rows.to_parquet(table, index=False)
            atomic_files.write(folder / name, table.getvalue())
        atomic_files.write_json(folder / JSON, summary)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return [folder / JSON, folder / PARQUET, folder / LOOKS]


def _unwritable(folder: Path, error: Exception) -> ScenarioError:
    why = getattr(error, "strerror", None) or str(error)
    return ScenarioError(f"{folder}: cannot take an explanation: {why}; choose a directory that can be written")
