"""The end of a command: errors become one line and an exit status, never a traceback for what a user can do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import typer

from asgd_lab import interrupts, output
from asgd_lab.errors import Interrupted, RunFailed, ScenarioError, refusal
from asgd_lab.trust import trusting

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, interrupts.INTERRUPTED


@contextlib.contextmanager
def reported(options: Mapping[str, Any] | None = None, *, trust: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the dotted keys that options set; end the program on an error, with its line and its exit status.

    Inside, code that a scenario names is imported only with `trust`.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    try:
        with trusting(trust):
            yield given
    except ScenarioError as error:
        _end(WRONG_INPUT, *(_as_written(line, given) for line in error.args))
    except RunFailed as error:
        _end(FAILED, str(error))
    except KeyboardInterrupt as error:
        kept = f"; {error}" if isinstance(error, Interrupted) and str(error) else ""
        _end(INTERRUPTED, f"interrupted{interrupts.cause()}{kept}")
    except Exception as error:
        if (line := refusal(error)) is None:
            raise
        _end(FAILED, line)


def _as_written(message: str, options: Mapping[str, Any]) -> str:
    """The message about an option as the user wrote it: --seed 1, not --set seed=1."""
    for key in options:
        if message.startswith(said := f"--set {key}:"):
            return f"--{key.partition('.')[0]}:{message.removeprefix(said)}"
    return message


def _end(status: int, *lines: str) -> NoReturn:
    output.hurry()
    for line in lines:
        typer.echo(" ".join(line.splitlines()), err=True)
    raise typer.Exit(status)
