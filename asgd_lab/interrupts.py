"""Signals that end the program: SIGINT (Ctrl-C), SIGTERM and SIGHUP have one meaning.

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


def quit_at_once() -> None:
    """Let these signals end the program at once, with one line."""
    for number in SIGNALS:
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


def ignore() -> None:
    """Ignore these signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Block these signals inside; a program that is started here inherits the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quit(number: int, frame: FrameType | None) -> None:
    try:
        if select.select([], [2], [], 0)[1]:  # do not wait for a reader
            os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)
