"""Errors of the user's code in the middle of a run: one line for the screen, the traceback for the run's log.

Recorded results are kept. No other file catches errors of a model, a loss or an optimizer.
"""

from __future__ import annotations

import traceback
from pathlib import Path

from asgd_lab.errors import ProtocolError, RunFailed
from asgd_lab.tasks.base import one_line


def minibatch_failed(worker: int | None, step: int | None, error: Exception) -> Exception:
    """The exception to raise from `error`: a RunFailed, except for bugs of our own."""
    if isinstance(error, ProtocolError):
        return error
    who = "several workers' minibatches" if worker is None else f"worker {worker}: minibatch {step}"
    return RunFailed(f"{who} failed: {error if isinstance(error, RunFailed) else one_line(error)}")


def evaluation_failed(error: Exception) -> Exception:
    """As `minibatch_failed`, for an evaluation."""
    return error if isinstance(error, ProtocolError | RunFailed) else RunFailed(f"evaluation failed: {one_line(error)}")


def logged(run_dir: Path, failure: RunFailed | ProtocolError) -> str:
    """Write the traceback of the failure's cause into the run's log; return the failure's line.

    A violation of the protocol is its own cause: a program and a gate do not fit together, or a backend has a bug.
    """
    cause = failure if isinstance(failure, ProtocolError) else failure.__cause__
    if cause is None:
        return str(failure)
    line = f"the protocol was violated: {failure}" if cause is failure else str(failure)
    log = run_dir / "logs" / "run.log"
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(cause))
    except OSError as error:
        return f"{line}; the traceback could not be written: {one_line(error)}"
    return f"{line}; the traceback is in {log}"
