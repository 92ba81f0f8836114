"""Waiting out stated times on the monotonic clock, which all processes of a node share."""

from __future__ import annotations

import ctypes
import time

PR_SET_TIMERSLACK = 29

now_ns = time.monotonic_ns


def precise_timers() -> None:
    """Ask the kernel to wake this process when it is due, not up to 50 microseconds later to save power."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def wait_out(words: memoryview[int], word: int, begun_ns: int, due_ns: int, stated_ns: int) -> int:
    """Sleep until then; count what it took since `begun_ns` in `word`, and what was stated in the next. When it was."""
    sleep_until(due_ns)
    ended_ns = now_ns()
    words[word] += max(stated_ns, ended_ns - begun_ns)
    words[word + 1] += stated_ns
    return ended_ns


def sleep_until(due_ns: int) -> None:
    """Sleep until the clock shows `due_ns`, if it does not yet."""
    while (left_ns := due_ns - now_ns()) > 0:
        time.sleep(left_ns * 1e-9)
