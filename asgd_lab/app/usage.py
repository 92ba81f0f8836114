"""Mistakes in the command line itself: one line with a near word or option, and status 2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from asgd_lab.errors import ScenarioError, meant
from asgd_lab.record import directory_locks
from asgd_lab.request import Request


class Program(TyperGroup):
    """The program; its mistakes are told as those in a scenario are."""

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """Parse the program's own options."""
        with _told():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Find the command, parse its arguments, and run it."""
        with _told():
            return super().invoke(ctx)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        said = error.format_message()
        context = getattr(error, "ctx", None)
        if "\n" in said:  # a help text, for a program without arguments
            raise
        path = "asgd-lab" if context is None else context.command_path
        if (
            context is not None
            and (option := getattr(error, "option_name", None)) is not None
            and hasattr(error, "possibilities")
        ):
            names = [name for each in context.command.params for name in each.opts if name.startswith("--")]
            said = error.message + ("" if "; did you mean" in error.message else meant(option, [*names, "--help"], 0.6))
        said = said.replace("Value error, ", "").rstrip(".").replace(". Did you mean", "; did you mean")
        end = " " if said.endswith("?") else "; "
        line = f"{path}: {said[0].lower()}{said[1:]}{end}{path} -h lists what there is"
        typer.echo(" ".join(line.split()), err=True)
        raise typer.Exit(error.exit_code) from None


def check_empty(out: Path | None, request: Request | None = None) -> None:
    """Refuse a directory that is not empty, before any import; the run itself refuses one that cannot be read.

    If it holds unfinished work of the request, the message also offers --resume.
    """
    try:
        with contextlib.suppress(OSError):
            if out is not None:
                directory_locks.check_empty(out, "--out")
    except ScenarioError as error:
        if out is None or request is None or not _is_unfinished(out, request):
            raise
        raise ScenarioError(f"{error}, or add --resume to go on with what is there") from None


def _is_unfinished(out: Path, request: Request) -> bool:
    if not any(out.glob("scenario.yaml")) and not any(out.glob("*/scenario.yaml")):
        return False
    from asgd_lab.run_points import is_unfinished

    with contextlib.suppress(ScenarioError, OSError):
        return is_unfinished(request, out)
    return False
