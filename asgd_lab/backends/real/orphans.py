"""No process of a run outlives the program that started it, even if it is stopped and hears nothing.

The kernel sends a signal to a process whose parent has ended. The parent of each process of ours is the fork server,
and the fork server's is the program. The fork server ends when nobody can ask it for a process any more; its children
could, so they let go of it first.
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
    """The hold on a run's directory: as long as any process has it, no other command may use the directory."""

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
    """The same in a process that the fork server has started, which from now on does not keep it alive."""
    follow_parent(number)
    descriptor, _server._forkserver_alive_fd = _server._forkserver_alive_fd, None
    if descriptor is None:
        return
    look = select.poll()
    look.register(descriptor, 0)
    has_ended = bool(look.poll(0))  # nobody reads the other end: it ended before it was followed
    os.close(descriptor)
    if has_ended:
        signal.raise_signal(number)


def fork_server() -> int | None:
    """Its process, while this program has one."""
    pid: int | None = _server._forkserver_pid
    return pid


def fate(patience_s: float = 5.0) -> str | None:
    """How the fork server ended; None if it has not within this time. It can be asked until the next one is started."""
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
    """Wait so long for the end of any process; whether it has ended."""
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
