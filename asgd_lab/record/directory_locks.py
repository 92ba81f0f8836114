"""Locks on run directories: one command at a time, from before it reads the directory until it has finished.

The lock is on the directory itself, which no command replaces, and not on a file in it. The kernel releases it when the
last process that has the descriptor ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from asgd_lab.errors import ScenarioError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # from a file system without locks


class _Lock(NamedTuple):
    descriptor: int
    excludes: bool  # False on a file system without locks


_Held = dict[tuple[int, int], _Lock]  # by device and inode
_NONE: _Held = {}
_HELD: ContextVar[_Held] = ContextVar("held", default=_NONE)


@contextlib.contextmanager
def made_and_locked(path: Path, option: str) -> Iterator[bool]:
    """Make the directory if it is missing, and lock it; yields whether it was made.

    A ScenarioError says that another command has the lock. A command that has it may acquire it again.
    """
    with contextlib.ExitStack() as stack:
        while True:
            made = _made(path, option)
            with contextlib.suppress(FileNotFoundError):  # the command that made it has just removed it again
                stack.enter_context(locked(path, option))
                break
        yield made


@contextlib.contextmanager
def locked(path: Path, option: str) -> Iterator[None]:
    """Lock an existing directory; FileNotFoundError if it is missing. Otherwise as `made_and_locked`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise unusable(path, option, error) from None
    try:
        about = os.fstat(descriptor)
        place = about.st_dev, about.st_ino
        if place in _HELD.get():
            yield
            return
        excludes = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{option}: {path} is in use; the run in it is still going on; wait for its end, or end it"
            raise ScenarioError(message) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            excludes = False
        if not os.path.samestat(about, os.stat(path)):
            raise FileNotFoundError(path)
        token = _HELD.set(_HELD.get() | {place: _Lock(descriptor, excludes)})
        try:
            yield
        finally:
            _HELD.reset(token)
    finally:
        os.close(descriptor)


def in_use(path: Path) -> bool | None:
    """Whether a command has the lock of this directory; None if the file system has no locks. It is free afterwards."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


class OpenDirectory:
    """A directory that a run keeps open: it is found again by its descriptor if the user moves it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def current_path(self) -> Path:
        """The directory's path now, or its last one if it was removed."""
        return Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))

    def lost(self) -> str | None:
        """A line on its removal or its new path; None while it is where it was opened."""
        about = os.fstat(self._descriptor)
        with contextlib.suppress(OSError):
            if os.path.samestat(about, os.stat(self._path)):
                return None
        with contextlib.suppress(OSError):
            if os.path.samestat(about, os.stat(self.current_path)):
                return f"{self._path}: was moved to {self.current_path} while the run went on"
        return f"{self._path}: was removed while the run went on"


def lock_descriptor(path: Path) -> int | None:
    """The descriptor of this command's lock, for child processes to inherit; None if it has none on this directory."""
    about = os.stat(path)
    found = _HELD.get().get((about.st_dev, about.st_ino))
    return None if found is None else found.descriptor


def without_locks(path: Path, option: str) -> list[str]:
    """A warning if this command's lock on the directory excludes nobody, else none."""
    about = os.stat(path)
    found = _HELD.get().get((about.st_dev, about.st_ino))
    if found is None or found.excludes:
        return []
    return [f"{option}: the file system of {path} has no locks: no other command may use it before this one has ended"]


def unusable(path: Path, option: str, error: Exception) -> Exception:
    """The error for a path that cannot be a run directory: OSError if the system lacks room, else ScenarioError."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return OSError(error.errno, error.strerror, str(path))
    why = getattr(error, "strerror", None) or str(error)
    if os.path.islink(path) and not os.path.exists(path):
        why = "it is a broken symbolic link"
    return ScenarioError(f"{option}: {path} cannot be used: {why}; choose a directory that can be written")


def _made(path: Path, option: str) -> bool:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if path.is_dir():
            return False
        raise unusable(path, option, NotADirectoryError(20, "it is no directory")) from None
    except (OSError, ValueError) as error:
        raise unusable(path, option, error) from None
    return True


def check_empty(path: Path, option: str) -> None:
    """ScenarioError if anything is in the directory; OSError if there is none that can be read."""
    if any(path.iterdir()):
        raise ScenarioError(f"{option}: {path} is not empty; choose another")
