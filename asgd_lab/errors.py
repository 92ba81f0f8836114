"""The errors of our own, named after who is at fault, and parts of their messages; text in, text out."""

from __future__ import annotations

import difflib
import errno
import resource
from collections.abc import Iterable
from pathlib import Path

_LIMITS = {
    errno.EMFILE: (resource.RLIMIT_NOFILE, "n"),
    errno.EAGAIN: (resource.RLIMIT_NPROC, "u"),
    errno.EFBIG: (resource.RLIMIT_FSIZE, "f"),
    errno.ENOMEM: (resource.RLIMIT_AS, "v"),
}
MOST_CHARACTERS = 1000  # of a line
MOST_LINES = 20


class ScenarioError(Exception):
    """The user's input is wrong: for each fault a line with its place, the fault, and the allowed values.

    Lines are printable and at most `MOST_CHARACTERS` long, even if they echo the input.
    """

    key: str = ""

    def __init__(self, *lines: str) -> None:
        super().__init__(*(_line(each) for each in lines))

    def __str__(self) -> str:
        return "\n".join(self.args)

    @classmethod
    def at(cls, key: str, message: str) -> ScenarioError:
        """An error about the scenario's dotted `key`; the reader of the file adds file and line."""
        error = cls(message)
        error.key = key
        return error

    @classmethod
    def all_of(cls, key: str, lines: Iterable[str]) -> ScenarioError:
        """One error for several lines, the first about `key`; at most MOST_LINES and the number of the others."""
        found = list(lines)
        shown, more = found[:MOST_LINES], len(found) - MOST_LINES
        error = cls(*shown, *([f"and {more:,} more"] if more > 0 else []))
        error.key = key
        return error


class ProtocolError(Exception):
    """A bug in a backend: it called the server or a replica in a way that no run may."""


class RunFailed(Exception):
    """A worker or the server died: the message says which, why, and where its log is.

    `run_dir` holds what was recorded, where that is known.
    """

    def __init__(self, *args: object, run_dir: Path | None = None) -> None:
        super().__init__(*args)
        self.run_dir = run_dir


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a signal like it, ended a run in order; `run_dir` holds what was recorded."""

    def __init__(self, *args: object, run_dir: Path | None = None) -> None:
        super().__init__(*args)
        self.run_dir = run_dir


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning and its end if it is longer than `limit`."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 3]}...{text[-tail:]}"


def shown(value: object) -> str:
    """A wrong value for a message: plain ones as they are, others by their type, whose `repr` may be anything."""
    plain = value is None or type(value) in (str, int, float, bool, bytes)
    try:
        return shortened(repr(value), 60) if plain else f"a {type(value).__qualname__}"
    except ValueError:  # an integer with more digits than Python prints
        return "a huge number"


def either(values: Iterable[str]) -> str:
    """'a', 'b' or 'c'."""
    quoted = [repr(value) for value in values]
    return ", ".join(quoted[:-1]) + " or " + quoted[-1] if len(quoted) > 1 else quoted[0]


def meant(word: object, allowed: Iterable[str], nearness: float = 0.7) -> str:
    """`; did you mean ...?` if one of the allowed words is near enough, else ""."""
    if not isinstance(word, str) or len(word) > 100:
        return ""
    plain = {one.casefold().replace("-", "_"): one for one in allowed}
    given = word.casefold().replace("-", "_")
    # Letters in another order: in a short word, difflib finds too few of them in place.
    near = [one for one in plain if sorted(one) == sorted(given)] if given not in plain else [given]
    near = near or difflib.get_close_matches(given, plain, n=1, cutoff=nearness)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""


def among(word: object, allowed: Iterable[str]) -> str:
    """`; did you mean ...? allowed: ...`, the end of a message about a word that is not one of the allowed."""
    known = list(allowed)
    return f"{meant(word, known) or ';'} allowed: {', '.join(known) or 'none'}"


def _limit(number: int | None) -> str:
    """The limit of this process behind an error of this number, for a message; "" if there is none."""
    which = _LIMITS.get(number or 0)
    if which is None:
        return ""
    most = resource.getrlimit(which[0])[0]
    return f" (ulimit -{which[1]}: {'unlimited' if most == resource.RLIM_INFINITY else most})"


def _line(text: str) -> str:
    """The text on one line, without control characters, which could steer a terminal."""
    # The text is shortened first: it may be as long as the memory allows.
    joined = " ".join(shortened(text, 4 * MOST_CHARACTERS).splitlines())
    printable = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in joined)
    return shortened(printable, MOST_CHARACTERS)


def refusal(error: BaseException) -> str | None:
    """One line on an operating system's refusal (a file, a process, memory); None for any other error."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}{_limit(error.errno)}" if error.strerror else words
    if isinstance(error, ImportError) and "failed to map segment" in words:  # a library lacked address space
        return f"out of memory: {words}"
    if "start new thread" in words or "launch worker thread" in words:  # from Python, and from pyarrow
        return f"the system starts no more threads{_limit(errno.EAGAIN)}"
    # torch raises a RuntimeError for memory, and a class of its own for a GPU's memory.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in words:
        return f"out of memory{words and ': '}{words}"
    return None
