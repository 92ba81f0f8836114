"""Places in users' code, for the one line that reports an error of it; nothing heavy is imported."""

from __future__ import annotations

import os
import sysconfig
import traceback

_LIBRARIES = (
    os.path.join(os.path.dirname(os.path.abspath(__file__)), ""), sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), "<frozen", "<string>", "<eval_with_key>",
)  # fmt: skip


def is_users(file: str) -> bool:
    """Whether a file belongs to no library."""
    return not file.startswith(_LIBRARIES) and "site-packages" not in file and "dist-packages" not in file


def place(error: BaseException) -> str:
    """` (FILE:LINE)`, the last place in a user's file that an exception passed; "" if it passed none.

    A file below the current directory has its path from there.
    """
    passed = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    for file, line in reversed(passed):
        if is_users(file):
            here = os.path.join(os.getcwd(), "")
            return f" ({file.removeprefix(here) if file.startswith(here) else os.path.basename(file)}:{line})"
    return ""


def said(error: BaseException, limit: int = 300) -> str:
    """The exception on one line, at most so many characters, and its place in a user's code."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:limit] + place(error)
