"""Signals that end the program: SIGINT (Ctrl-C), SIGTERM, SIGHUP, and SIGXCPU at a limit, have one meaning.

While the program starts, a signal quits at once: nothing is recorded yet, and imported libraries may turn a
KeyboardInterrupt into any error. After `heed` a signal raises KeyboardInterrupt, which ends a run in order. A signal
that was ignored when the program started (`nohup`) stays ignored. This file imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from asgd_lab import output

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
_limits: list[signal.Signals] = []  # SIGXCPU, once it has been heard


def quit_at_once() -> None:
    """Let these signals end the program at once, with one line."""
    for number in (*SIGNALS, signal.SIGXCPU):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _quit)


def heed() -> None:
    """Call this when work begins: these signals raise KeyboardInterrupt, and output never waits for its reader.

    Signals change only if `quit_at_once` was called before.
    """
    output.hurry()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is _quit:
                signal.signal(number, signal.default_int_handler)
        if signal.getsignal(signal.SIGXCPU) is _quit:
            heed_limit()


def heed_limit() -> None:
    """Let SIGXCPU, at the soft limit of this process's processor time, interrupt the work as the other signals do."""
    signal.signal(signal.SIGXCPU, _limited)


def ignore_limit() -> None:
    """Ignore SIGXCPU from now on."""
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)


def note_limit() -> None:
    """Note that a limit of processor time is the cause of the interruption."""
    _limits.append(signal.SIGXCPU)


def cause() -> str:
    """The cause of the interruption, for its message: "" for a signal of the user."""
    return ": the limit of processor time is reached (ulimit -t)" if _limits else ""


def ignore() -> None:
    """Ignore these signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if signal.getsignal(signal.SIGXCPU) in (_quit, _limited):  # else it ends a process of the run, which is told
        ignore_limit()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Block these signals inside; a program that is started here inherits the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _limited(number: int, frame: FrameType | None) -> None:
    """Act as the first other signal that is not ignored, once: the kernel repeats SIGXCPU with each second."""
    ignore_limit()
    note_limit()
    others = [each for each in SIGNALS if callable(signal.getsignal(each))]
    if not others:
        raise KeyboardInterrupt
    signal.raise_signal(others[0])


def _quit(number: int, frame: FrameType | None) -> None:
    try:
        if select.select([], [2], [], 0)[1]:  # do not wait for a reader
            os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)
