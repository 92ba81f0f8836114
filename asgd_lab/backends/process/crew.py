"""The processes of one run: started from the fork server, watched, stopped, and none left behind.

Children run this package's modules and never the user's main script, so a notebook needs no `__main__` guard.
"""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import time
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch.multiprocessing

from asgd_lab.backends.outcome import Progress, Watch
from asgd_lab.backends.process import channel, server, worker
from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.clock import now_ns
from asgd_lab.backends.process.plan import Plan
from asgd_lab.backends.process.preload import without_main

POLL_S = 0.2
PATIENCE_S = 30.0  # for processes that were told to stop


class Crew:
    """The processes, running inside a `with`; none of them is left when it ends."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.failure: str | None = None
        context: Any = torch.multiprocessing.get_context("forkserver")
        pairs = [channel.pair() for _ in range(plan.scenario.workers)]
        self._line, servers_line = socket.socketpair()
        self._theirs = [servers_line, *(end for pair in pairs for end in pair)]
        self.server: BaseProcess = context.Process(
            target=server.main, args=(plan, [a for a, _ in pairs], servers_line), name="server"
        )
        self.workers: list[BaseProcess] = [
            context.Process(target=worker.main, args=(plan, number, end), name=f"worker {number}")
            for number, (_, end) in enumerate(pairs)
        ]

    def __enter__(self) -> None:
        try:
            self._start()
        except BaseException:
            self.end()
            raise

    def __exit__(self, *_: object) -> None:
        self.end()

    def _start(self) -> None:
        """Start them all, and keep none of their sockets: a socket's last end must be its owner's."""
        with without_main():
            for process in self.processes:
                process.start()
        for end in self._theirs:
            end.close()

    @property
    def processes(self) -> list[BaseProcess]:
        """All of them, the server first."""
        return [self.server, *self.workers]

    def watch(self, watch: Watch | None) -> None:
        """Wait for the end of the run; stop it at the first failure, which is then told by `failure`."""
        alive = {process.sentinel: process for process in self.processes}
        while alive:
            for sentinel in connection.wait(list(alive), timeout=POLL_S if watch is not None else None):
                process = alive.pop(sentinel)  # type: ignore[arg-type]
                process.join()
                if process.exitcode:
                    self.failure = self._why(process)
                    self.stop()
                    return
            if watch is not None:
                watch(self._progress())

    def stop(self) -> None:
        """Ask for the end of the run, and wait for it as long as is reasonable; then end what is left."""
        with contextlib.suppress(OSError):
            self._line.send(b"s")
        until = time.monotonic() + PATIENCE_S
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        self.end()

    def end(self) -> None:
        """No process of this run is left when this returns."""
        started = [process for process in self.processes if process.pid is not None]
        for process in started:
            if process.is_alive():
                process.kill()
            process.join()
        for end in (self._line, *self._theirs):
            end.close()

    def _why(self, process: BaseProcess) -> str:
        log = self.plan.logs / f"{process.name.replace(' ', '-')}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        code = process.exitcode or 0
        if code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
        else:
            cause = f"failed: {next((line for line in reversed(lines) if line.strip()), f'exit status {code}')}"
        done = ""
        if process is not self.server:
            steps = self.plan.board.worker[int(process.name.split()[1]), Board.STEPS]
            done = f" after {steps} minibatches"
        return f"{process.name} {cause}{done}; its log is {log}"

    def _progress(self) -> Progress:
        board = self.plan.board
        start_ns = int(board.server[Board.START_NS])
        losses = board.loss[:, 0][board.worker[:, Board.STEPS] > 0]
        learned = bool(board.server[Board.MINIBATCHES])
        return Progress(
            seconds=(now_ns() - start_ns) * 1e-9 if start_ns else 0.0,
            version=int(board.server[Board.VERSION]),
            minibatches=int(board.server[Board.MINIBATCHES]),
            staleness=int(board.server[Board.STALENESS]),
            loss=float(np.mean(losses)) if len(losses) else math.nan,
            error=float(board.training_error[0]) if learned else math.nan,
            workers=[Board.STATES[int(state)] for state in board.worker[:, Board.STATE]],
        )
