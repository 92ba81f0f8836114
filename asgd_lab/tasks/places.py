"""Places of data on the disk: folders to search, and all folders below one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from asgd_lab.errors import ScenarioError


def folders(data_folder: str | None) -> list[Path]:
    """The folders to search: the stated one, $ASGD_LAB_DATA, and the cache."""
    if data_folder is not None and not Path(data_folder).expanduser().is_dir():
        raise ScenarioError.at("task.data_folder", f"{data_folder} is not a folder")
    stated = (data_folder, os.environ.get("ASGD_LAB_DATA"), cache())
    return [Path(folder).expanduser() for folder in stated if folder]


def cache() -> Path:
    """The folder for downloads."""
    return Path("~/.cache/asgd_lab").expanduser()


def walked(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder and all folders below it, each with the names of its files; links are followed.

    An OSError if one cannot be read; a `ScenarioError` for a link to a folder that it lies in, which has no end.
    """

    def failed(error: OSError) -> None:
        raise error

    above: dict[str, frozenset[tuple[int, int]]] = {}
    for folder, _, names in os.walk(root, onerror=failed, followlinks=True):
        found, outside = os.stat(folder), above.get(os.path.dirname(folder), frozenset())
        if (found.st_dev, found.st_ino) in outside:
            raise ScenarioError.at("task.data_folder", f"{folder} is a link to a folder that it lies in")
        above[folder] = outside | {(found.st_dev, found.st_ino)}
        yield folder, names
