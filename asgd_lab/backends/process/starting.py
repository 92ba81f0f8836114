"""Starts a run's processes from the fork server, which may have ended, or stand still, when it is asked."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import torch.multiprocessing

from asgd_lab.backends.process import orphans
from asgd_lab.backends.process.preload import preload, without_main
from asgd_lab.errors import RunFailed

PATIENCE_S = 120.0  # for a start, of which the first waits for the fork server's imports
LOST = 255  # the exit status of a process of which the fork server can tell nothing any more


def start(name: str, target: Any, arguments: Sequence[Any]) -> BaseProcess:
    """A new process; RunFailed if there is no fork server to start it."""
    preload()
    context: Any = torch.multiprocessing.get_context("forkserver")
    process: BaseProcess = context.Process(target=target, args=tuple(arguments), name=name)
    try:
        with without_main(), _impatience():
            process.start()
    except (EOFError, ConnectionError) as error:
        how = orphans.fate()
        if how is None:
            raise
        raise RunFailed(f"the fork server {how} before it had started {name}") from error
    return process


@contextlib.contextmanager
def _impatience() -> Iterator[None]:
    timer = threading.Timer(PATIENCE_S, kill_fork_server)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def kill_fork_server() -> None:
    """End it, and with it all that it has started."""
    pid = orphans.fork_server()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(process: BaseProcess, patience_s: float = 10.0) -> None:
    """Kill a process and wait until it has ended. A fork server that cannot tell of it ends too."""
    if process.is_alive():
        process.kill()
        process.join(patience_s)
    if process.is_alive():
        kill_fork_server()
    process.join()
    process.close()
