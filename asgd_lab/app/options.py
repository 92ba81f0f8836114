"""The arguments and options that commands share, and the hint for a scenario's key that is given as an option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from asgd_lab import __version__
from asgd_lab.catalogue import CATALOGUE
from asgd_lab.scenario import as_assignment


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"asgd-lab {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="In place of the file's backend.name.",
        autocompletion=lambda: [*CATALOGUE["backends"]()],
    ),
]
_SCENARIO: Any = typer.Argument(
    metavar="SCENARIO", show_default=False, help="A YAML file, or a name that `asgd-lab list scenarios` prints."
)
ScenarioFile = Annotated[str, _SCENARIO]
ScenarioFiles = Annotated[list[str], _SCENARIO]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a dotted key, as in algorithm.n_sync=10. Repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", show_default=False, help="A new or empty directory; if not given, runs/NAME/TIME."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Import and run code that is named by package.module:name, whoever wrote it.")
]


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
                error.message = f"{message.rstrip('.')}; did you mean --set {hint}?"
            raise
