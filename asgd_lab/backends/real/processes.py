"""A run's processes: started from the fork server, ended, and what is kept of each.

The fork server may have ended, or stand still, when it is asked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch.multiprocessing

from asgd_lab.backends.real import orphans
from asgd_lab.backends.real.preload import preload, without_main
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


def why(name: str, code: int, log: Path, done: str) -> str:
    """One line on a process that ended with `code`: the signal, or the last line of its log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    if code < 0:
        cause = f"was killed by {signal.Signals(-code).name}"
    else:
        cause = f"failed: {next((line for line in reversed(lines) if line.strip()), f'exit status {code}')}"
    return f"{name} {cause}{done}; its log is {log}"


@dataclass(slots=True)
class Place:
    """One worker's place: its process, and what has become of earlier ones."""

    process: BaseProcess | None = None
    started: int = 0
    in_vain: int = 0
    steps: int = 0  # when its last process died
    given_up_ns: int | None = None
    due_ns: int | None = None  # when its next process is to be started
    expected_ns: int | None = None  # its death was asked for: start the next one then


@dataclass(slots=True)
class Losses:
    """What has happened to the processes of a run."""

    workers: int = 0  # that died
    servers: int = 0
    restarts: int = 0  # of workers
    silences: int = 0  # workers that were given up
    awakenings: int = 0  # and came back by themselves
    log: list[str] = field(default_factory=list)
