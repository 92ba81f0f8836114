"""The arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asgd_lab import __version__
from asgd_lab.catalogue import CATALOGUE


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
ScenarioFile = Annotated[str, typer.Argument(metavar="SCENARIO", show_default=False, help="The scenario's YAML file.")]
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
