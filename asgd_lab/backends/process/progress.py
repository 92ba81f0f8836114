"""What the board shows of a run that goes on, and what a log says of a process that has ended."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import numpy as np

from asgd_lab.backends.outcome import Progress, WorkerLook
from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.clock import now_ns


def progress(board: Board) -> Progress:
    """One look."""
    start_ns = int(board.server[Board.START_NS])
    now = now_ns() - start_ns if start_ns else 0
    losses = board.loss[:, 0][board.worker[:, Board.STEPS] > 0]
    learned = bool(board.server[Board.MINIBATCHES])
    return Progress(
        seconds=now * 1e-9,
        version=int(board.server[Board.VERSION]),
        minibatches=int(board.server[Board.MINIBATCHES]),
        staleness=int(board.server[Board.STALENESS]),
        loss=float(np.mean(losses)) if len(losses) else math.nan,
        error=float(board.training_error[0]) if learned else math.nan,
        workers=[_look(words, now) for words in board.worker.tolist()],
    )


def _look(words: list[int], now: int) -> WorkerLook:
    """One worker, whose words these are; before its first minibatch it has not trained, but started."""
    trained = words[Board.TRAINED_NS] / now if now else 0.0
    return WorkerLook(
        Board.STATES[words[Board.STATE]],
        words[Board.STEPS],
        words[Board.STALE],
        max(0.0, 1.0 - trained),
        max(0, words[Board.LIVES] - 1),
    )


def why(name: str, code: int, log: Path, done: str) -> str:
    """One line on a process that ended with `code`: the signal, or the last line of its log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    if code < 0:
        cause = f"was killed by {signal.Signals(-code).name}"
    else:
        cause = f"failed: {next((line for line in reversed(lines) if line.strip()), f'exit status {code}')}"
    return f"{name} {cause}{done}; its log is {log}"
