"""A run's processes: start from the fork server, end, and their places.

The fork server may have ended, or be stopped, at any of these calls.
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
from asgd_lab.errors import ProtocolError, RunFailed

PATIENCE_S = 120.0  # for a start; the first start waits for the fork server's imports
LOST = 255  # the exit status of a process when the fork server cannot report it any more


def start(name: str, target: Any, arguments: Sequence[Any]) -> BaseProcess:
    """Start a process; RunFailed if the fork server cannot."""
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
    """Kill the fork server, and with it all its processes."""
    pid = orphans.fork_server()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end(process: BaseProcess, patience_s: float = 10.0) -> None:
    """Kill a process and wait for its end. A fork server that cannot report it is killed too."""
    if process.is_alive():
        process.kill()
        process.join(patience_s)
    if process.is_alive():
        kill_fork_server()
    process.join()
    process.close()


def why(name: str, code: int, log: Path, done: str) -> str:
    """A line on a process that ended with `code`: the signal, or the last line of its log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    if code < 0:
        cause = f"was killed by {signal.Signals(-code).name}"
    else:
        last = next((line for line in reversed(lines) if line.strip()), f"exit status {code}")
        for ours in (RunFailed, ProtocolError):  # their messages say all
            last = last.removeprefix(f"{ours.__module__}.{ours.__name__}: ")
        cause = f"failed: {last}"
    return f"{name} {cause}{done}; its log is {log}"


@dataclass(slots=True)
class Place:
    """One worker's place: its process, and the fate of earlier ones."""

    process: BaseProcess | None = None
    started: int = 0
    in_vain: int = 0
    steps: int = 0  # minibatches at the death of its last process
    given_up_ns: int | None = None
    due_ns: int | None = None  # the time to start its next process
    expected_ns: int | None = None  # a fault kills it: the time to start the next one


@dataclass(slots=True)
class Losses:
    """Counts of a run's lost processes."""

    workers: int = 0  # that died
    servers: int = 0
    restarts: int = 0  # of workers
    silences: int = 0  # workers failed for their silence
    awakenings: int = 0  # and came back by themselves
    log: list[str] = field(default_factory=list)
