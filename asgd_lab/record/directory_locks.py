"""A directory is held by one command at a time, from before it is looked at until the command is over with it.

The lock is on the directory itself, which no command replaces, and not on a file in it. The kernel lets go of it with
the processes that have the descriptor, however they end.
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

from asgd_lab.errors import ScenarioError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of a file system that has none
_Held = dict[tuple[int, int], int]  # by device and inode: the descriptor that has the lock
_NONE: _Held = {}
_HELD: ContextVar[_Held] = ContextVar("held", default=_NONE)


@contextlib.contextmanager
def made_and_locked(path: Path, option: str) -> Iterator[bool]:
    """Hold the directory, which is made if there is none; whether it was. ScenarioError if another command holds it.

    A command that holds it already may take it again.
    """
    with contextlib.ExitStack() as stack:
        while True:
            made = _made(path, option)
            with contextlib.suppress(FileNotFoundError):  # who made it has just removed it again
                stack.enter_context(locked(path, option))
                break
        yield made


@contextlib.contextmanager
def locked(path: Path, option: str) -> Iterator[None]:
    """Hold a directory that is there; FileNotFoundError if it is not. Otherwise as `made_and_locked`."""
    try:
        lock_descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise unusable(path, option, error) from None
    try:
        about = os.fstat(lock_descriptor)
        place = about.st_dev, about.st_ino
        if place in _HELD.get():
            yield
            return
        try:
            fcntl.flock(lock_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{option}: {path} is in use; the run in it is still going on; wait for its end, or end it"
            raise ScenarioError(message) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        if not os.path.samestat(about, os.stat(path)):
            raise FileNotFoundError(path)
        token = _HELD.set(_HELD.get() | {place: lock_descriptor})
        try:
            yield
        finally:
            _HELD.reset(token)
    finally:
        os.close(lock_descriptor)


class OpenDirectory:
    """A directory that something is written into for a long time, wherever it is moved meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def now(self) -> Path:
        """Where it is, or was last."""
        return Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))

    def lost(self) -> str | None:
        """What has become of it, if it is not at its path any more."""
        about = os.fstat(self._descriptor)
        with contextlib.suppress(OSError):
            if os.path.samestat(about, os.stat(self._path)):
                return None
        with contextlib.suppress(OSError):
            if os.path.samestat(about, os.stat(self.now)):
                return f"{self._path}: was moved to {self.now} while the run went on"
        return f"{self._path}: was removed while the run went on"


def lock_descriptor(path: Path) -> int | None:
    """Of a directory that this command holds, for processes that are to hold it as well; None if it does not."""
    about = os.stat(path)
    return _HELD.get().get((about.st_dev, about.st_ino))


def unusable(path: Path, option: str, error: Exception) -> Exception:
    """What is said of a path at which no directory can be; what the system has no room for is no fault of the path."""
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
