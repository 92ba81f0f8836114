"""What a person or a scheduler says to end the program: SIGINT (Ctrl-C), SIGTERM and SIGHUP are one wish.

While the program starts nothing is recorded yet, and the imports of others may turn a KeyboardInterrupt into anything:
it quits on the spot. From `heed` on the wish is a KeyboardInterrupt, which a run ends at. A signal that whoever started
the program has it ignore (`nohup`) stays ignored. This file imports nothing heavy.
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
    """From now on such a signal ends the program, with one line."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _quit)


def heed() -> None:
    """The work begins: such a signal raises KeyboardInterrupt, and no reader of what is printed is waited for.

    Where `quit_at_once` was never called nothing changes for signals.
    """
    output.hurry()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is _quit:
                signal.signal(number, signal.default_int_handler)


def ignore() -> None:
    """From now on such a signal is somebody else's to hear."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside, such signals wait until this ends; a program that is started hears none until it says otherwise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _quit(number: int, frame: FrameType | None) -> None:
    try:
        if select.select([], [2], [], 0)[1]:  # nobody is waited for
            os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)
