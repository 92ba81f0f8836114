"""No process of a run outlives the program that started it, even if the process is stopped.

The kernel sends a signal to a process when its parent ends. The parent of our processes is the fork server, and the
fork server's is the program. The fork server ends when no process holds its request pipe any more; its children inherit
the pipe, so they close it first.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import Any

from asgd_lab.record import directory_locks

PR_SET_PDEATHSIG = 1

_server: Any = forkserver._forkserver  # of the standard library, without a public name


class SharedHold:
    """The lock on a run's directory, shared with child processes: it is released when the last of them ends."""

    def __init__(self, path: Path) -> None:
        self._descriptor = directory_locks.lock_descriptor(path)

    def __getstate__(self) -> dict[str, object]:
        return {"fd": None if self._descriptor is None else reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._descriptor = None if state["fd"] is None else state["fd"].detach()


def follow_parent(number: signal.Signals) -> None:
    """Receive this signal when the process's parent ends: SIGKILL ends a stopped process, SIGCONT wakes it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def follow_fork_server(number: signal.Signals) -> None:
    """As `follow_parent`, in a process of the fork server, which this process no longer keeps alive."""
    follow_parent(number)
    descriptor, _server._forkserver_alive_fd = _server._forkserver_alive_fd, None
    if descriptor is None:
        return
    look = select.poll()
    look.register(descriptor, 0)
    has_ended = bool(look.poll(0))  # no reader at the other end: the parent ended before it was followed
    os.close(descriptor)
    if has_ended:
        signal.raise_signal(number)


def fork_server() -> int | None:
    """The fork server's process number, or None while this program has none."""
    pid: int | None = _server._forkserver_pid
    return pid


def fate(patience_s: float = 5.0) -> str | None:
    """The exit of the fork server; None if it did not end within this time. Valid until the next one is started."""
    pid = fork_server()
    if pid is None or not await_end(pid, patience_s):
        return None
    with contextlib.suppress(ChildProcessError):
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None and ended.si_code == os.CLD_EXITED:
            return f"ended with exit status {ended.si_status}"
        if ended is not None:
            return f"was killed by {signal.Signals(ended.si_status).name}"
    return "has ended"


def await_end(pid: int, patience_s: float = 5.0) -> bool:
    """Wait for the end of any process, at most that long; return whether it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    look = select.poll()
    look.register(descriptor, select.POLLIN)
    try:
        return bool(look.poll(patience_s * 1e3))
    finally:
        os.close(descriptor)
