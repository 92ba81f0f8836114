"""Hints for arguments that a command does not understand: a scenario's key given as an option."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand
from typer.exceptions import TyperException

from asgd_lab.scenario import as_assignment


class Command(TyperCommand):
    """A command that takes a scenario."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; the error about workers=8, --workers=8 or --workers 8 also says how to set the key."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            known = {name for option in self.params for name in option.opts}
            beside = zip(["", *given], given, [*given[1:], ""], strict=False)
            unknown = [(each, after) for before, each, after in beside if before not in known and each not in known]
            hint = next(filter(None, (as_assignment(*each) for each in unknown)), None)
            message = getattr(error, "message", None)  # only errors about the arguments have one
            if hint and message:
                error.message = f"{message.rstrip('.')}. Did you mean --set {hint}?"
            raise
