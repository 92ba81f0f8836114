"""The fork server's first module, imported by no other process.

The program alone handles signals that end a run. If the program ends, the fork server ends as well, even if it is
stopped at that time, and removes its socket; its children end with it.
"""

from __future__ import annotations

import atexit
import os
import signal
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from asgd_lab import interrupts
from asgd_lab.backends.real import orphans
from asgd_lab.record import removal

_PROCESS = os.getpid()
_fork = os.fork


def _end() -> None:
    """Remove the socket and its folder: a program that was killed cannot."""
    server: Any = forkserver._forkserver  # of the standard library, without a public name
    if os.getpid() == _PROCESS and server._forkserver_address:
        removal.remove_socket(Path(server._forkserver_address))


def _forked() -> int:
    """A fork; if the system refuses it, the child's end without a message, which the program reports."""
    try:
        number = _fork()
    except OSError:
        raise SystemExit(1) from None
    if not number:
        os.fork = _fork  # in children `os.fork` is as usual
    return number


os.fork = _forked
interrupts.ignore()
orphans.follow_parent(signal.SIGCONT)
atexit.register(_end)
