"""The three errors of our own, named by whose fault they are; each carries its message and nothing else."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterable

_LIMITS = {
    errno.EMFILE: (resource.RLIMIT_NOFILE, "n"),
    errno.EAGAIN: (resource.RLIMIT_NPROC, "u"),
    errno.EFBIG: (resource.RLIMIT_FSIZE, "f"),
    errno.ENOMEM: (resource.RLIMIT_AS, "v"),
}
MOST_CHARACTERS = 1000  # of a line
MOST_LINES = 20


class ScenarioError(Exception):
    """The user's input is wrong: the message says where, what, and what is allowed; a line each thing that is wrong.

    No line echoes more of the input than a reader can use: it is printable and at most `MOST_CHARACTERS` long.
    """

    key: str = ""

    def __init__(self, *lines: str) -> None:
        super().__init__(*(_line(each) for each in lines))

    def __str__(self) -> str:
        return "\n".join(self.args)

    @classmethod
    def at(cls, key: str, message: str) -> ScenarioError:
        """An error about the scenario's dotted `key`, to which whoever knows the file adds file and line."""
        error = cls(message)
        error.key = key
        return error

    @classmethod
    def all_of(cls, key: str, lines: Iterable[str]) -> ScenarioError:
        """Several at once, the first of them at `key`; of many, the first and how many more there are."""
        found = list(lines)
        shown, more = found[:MOST_LINES], len(found) - MOST_LINES
        error = cls(*shown, *([f"and {more:,} more"] if more > 0 else []))
        error.key = key
        return error


class ProtocolError(Exception):
    """A bug in a backend: it called the server or a replica in a way that no run may."""


class RunFailed(Exception):
    """A worker or the server died: the message says which, why, and where its log is."""


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and its end where it is longer."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 3]}...{text[-tail:]}"


def _limit(number: int | None) -> str:
    """The limit of this process that an error of this number comes from, where there is one."""
    which = _LIMITS.get(number or 0)
    if which is None:
        return ""
    most = resource.getrlimit(which[0])[0]
    return f" (ulimit -{which[1]}: {'unlimited' if most == resource.RLIM_INFINITY else most})"


def _line(text: str) -> str:
    """On one line, without what could steer a terminal."""
    # What is cut away is not looked at: a text may have as many characters as the memory holds.
    joined = " ".join(shortened(text, 4 * MOST_CHARACTERS).splitlines())
    printable = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in joined)
    return shortened(printable, MOST_CHARACTERS)


def refusal(error: BaseException) -> str | None:
    """One line on what the operating system has refused: files, processes, memory. None for any other error."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}{_limit(error.errno)}" if error.strerror else words
    if isinstance(error, ImportError) and "failed to map segment" in words:  # of a library, for want of address space
        return f"out of memory: {words}"
    if "start new thread" in words or "launch worker thread" in words:  # Python's words, and pyarrow's
        return f"the system starts no more threads{_limit(errno.EAGAIN)}"
    # torch tells of memory by a RuntimeError, of a GPU's by a class of its own.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in words:
        return f"out of memory{words and ': '}{words}"
    return None
