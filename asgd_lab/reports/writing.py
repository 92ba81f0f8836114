"""Reports as files: written on demand, or at the end of a command, whose result they never change."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from asgd_lab.errors import ScenarioError, refusal
from asgd_lab.record import atomic_files, removal
from asgd_lab.reports import page
from asgd_lab.reports.recorded import Subject, opened

NAME = "report.html"


def write(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of the directories `paths` into the file `out`; a `ScenarioError` if there is none to write.

    Without `out` it goes into the directory if there is one, and into the current directory if there are several.
    """
    if not paths:
        raise ScenarioError("report: name the directory of a run, a sweep or a comparison")
    page.library()
    subjects = [opened(path) for path in paths]
    target = out or (paths[0] / NAME if len(paths) == 1 else Path(NAME))
    _check(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return _write(subjects, target)
    except OSError as error:
        raise ScenarioError(f"--out: {target} cannot be written: {error.strerror}") from None


def write_beside(subject: Callable[[], Subject], say: Callable[[str], None]) -> Path | None:
    """Write a command's report into its directory, if the library is installed; `say` hears why there is none.

    A report is an extra: whatever fails in it must not fail the run.
    """
    if page.library_path() is None:
        return None
    try:
        found = subject()
        _check(found.path / NAME)
        return _write([found], found.path / NAME)
    except Exception as error:
        said = str(error) if isinstance(error, ScenarioError) else refusal(error) or f"{type(error).__name__}: {error}"
        say(f"the report could not be written: {said}")
        return None


def _check(target: Path) -> None:
    """A `ScenarioError` if anything but a page of this program is at the path, or at the one where it is made."""
    for path in (target, target.with_name(f"{target.name}.new")):
        if os.path.lexists(path) and not removal.is_report(path):
            what = "a symbolic link" if path.is_symlink() else "a folder" if path.is_dir() else "no report of asgd-lab"
            raise ScenarioError(f"--out: {path} exists and is {what}; move it elsewhere, or choose another file")


def _write(subjects: Sequence[Subject], target: Path) -> Path:
    text = page.html(subjects)
    with atomic_files.replacing(target, durable=False) as file:
        file.write(text.encode("utf-8", errors="replace"))
    return Path(os.path.abspath(target))
