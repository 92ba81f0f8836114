"""Removal of a run's own files, which are known by name. No other file of the package removes anything.

A file of another name is the user's, in whatever folder, and so is a symbolic link: the program makes none and follows
none. So is a page that does not say that this program wrote it. A folder is removed only when it is empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from asgd_lab.errors import ScenarioError

_PROCESS = r"(server|buffers|worker-\d+(-\d+)?|replica-\d+)"
_FILES = re.compile(
    "|".join(
        (
            r"(scenario\.yaml|(manifest|summary|trace|progress)\.json|(effects|minibatches|evals|distances)\.parquet)(\.new|\.part)?",
            r"events\.rows(\.new)?",
            r"explain(\.json|(-pushes)?\.parquet)(\.new)?",
            r"logs/(run|server|worker-\d+)\.log",
            rf"parts/{_PROCESS}\.(effects|minibatches|snapshots|distances|\d+\.np[yz])(\.new)?",
            r"parts/final\.npz(\.new)?",
            r"checkpoints/final\.npz(\.new)?",
            r"tensorboard/events\.out\.tfevents\.\d+\.asgd-lab",
            r"checkpoints/(\d+|unfinished(-\d+)?)/((server|worker-\d+)\.npz|state\.json)(\.part|\.new)?",
        )
    )
)
_MARK = re.compile(rb'<meta name="generator" content="asgd-lab [^"]*">')
_MARK_WITHIN = 4096  # bytes of a page's beginning
REPORTS = ("report.html", "report.html.new")  # names that a user may give a page of another kind
_FOLDERS = re.compile(r"logs|parts|tensorboard|checkpoints(/(\d+|unfinished(-\d+)?))?")


def is_ours(name: str) -> bool:
    """Whether a run writes a file or a folder of this name; `name` is relative to the run directory."""
    return bool(_FILES.fullmatch(name) or _FOLDERS.fullmatch(name))


def is_report(path: Path) -> bool:
    """Whether this is a plain file that begins as a page of this program does, or is empty; no symbolic link is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        begins = os.read(descriptor, _MARK_WITHIN) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b"no file"
    finally:
        os.close(descriptor)
    return not begins or _MARK.search(begins) is not None


def check(run_dir: Path) -> None:
    """ScenarioError if a link, a FIFO or the like is at the path of a run's own file or folder."""
    for name, mode in _named(run_dir):
        wanted = stat.S_ISDIR if _FOLDERS.fullmatch(name) else stat.S_ISREG
        if not wanted(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "no plain file"
            raise ScenarioError(f"{run_dir / name}: is {kind}, which no run has there; move it elsewhere")


def clear(run_dir: Path, inside: str = "") -> None:
    """Remove a run's own files, and its folders if they hold no file of the user's; only below `inside` if given."""
    root = Path(os.path.realpath(run_dir))
    folders = []
    if not inside:
        remove_reports(root)
    for name, mode in list(_named(root)):
        if not f"{name}/".startswith(f"{inside}/" if inside else ""):
            continue
        if _FOLDERS.fullmatch(name) and stat.S_ISDIR(mode):
            folders.append(root / name)
        elif _FILES.fullmatch(name) and stat.S_ISREG(mode):
            (root / name).unlink(missing_ok=True)
    for folder in reversed(folders):  # the inner ones first
        remove_if_empty(folder)


def remove_reports(run_dir: Path) -> None:
    """Remove the page that this program wrote about a run, whose numbers are no longer true."""
    for name in REPORTS:
        if is_report(run_dir / name):
            (run_dir / name).unlink(missing_ok=True)


def remove_if_empty(folder: Path) -> None:
    """Remove the folder unless it holds anything; no error if it does, or is missing."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def remove_socket(path: Path) -> None:
    """Remove a socket that this program made in a temporary folder of its own, and that folder."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    remove_if_empty(path.parent)


def remove_file(run_dir: Path, name: str) -> None:
    """Remove one of a run's own files, if it is there."""
    assert _FILES.fullmatch(name), name
    with contextlib.suppress(FileNotFoundError):
        (run_dir / name).unlink()


def remove_unfinished(path: Path) -> None:
    """Remove a file that was written aside (`.new`) and cannot be completed."""
    assert path.suffix == ".new", path
    path.unlink(missing_ok=True)


def _named(run_dir: Path, folder: str = "") -> Iterator[tuple[str, int]]:
    """Name and mode of every entry with a name of ours, outer folders first. No link is followed below `run_dir`."""
    try:
        entries = sorted(os.listdir(run_dir / folder))
    except OSError:
        return
    for entry in entries:
        name = f"{folder}/{entry}" if folder else entry
        if not is_ours(name):
            continue
        try:
            mode = os.lstat(run_dir / name).st_mode
        except OSError:
            continue
        yield name, mode
        if stat.S_ISDIR(mode) and _FOLDERS.fullmatch(name):
            yield from _named(run_dir, name)
