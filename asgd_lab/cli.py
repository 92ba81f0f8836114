"""The command line: it reads arguments, calls, and turns errors into one line and an exit status; nothing else.

Nothing that imports torch, pandas or pyarrow is imported before a command needs it: help and a wrong file answer at
once.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console

from asgd_lab import display
from asgd_lab.backends.process.preload import preload
from asgd_lab.catalogue import CATALOGUE
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.scenario import Document, Point, json_schema, parse_assignment
from asgd_lab.scenario.keys import covers

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
PLAIN_WIDTH = 160  # of a table that goes to a file or a pipe

app = typer.Typer(
    help="Asynchronous data-parallel training: one scenario, run for real or simulated.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ScenarioFile = Annotated[str, typer.Argument(metavar="SCENARIO", show_default=False, help="The scenario's YAML file.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a dotted key, as in algorithm.n_sync=10. Repeatable."),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", show_default=False, help="A new or empty directory; if not given, runs/NAME/TIME."),
]


def main() -> None:
    """The program."""
    try:
        app(prog_name="asgd-lab")
    finally:
        # All is said and written: another Ctrl-C could only disturb the interpreter's own last steps.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@app.command()
def run(
    scenario: ScenarioFile,
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="In place of the file's backend.name.")] = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="In place of the file's seed.")] = None,
    assignments: Assignments = None,
) -> None:
    """Run a scenario, or every point of its sweep, each into a directory of its own.

    Exit status: 0 done; 1 a run failed; 2 the input was wrong; 130 interrupted. What was recorded is kept.
    """
    with _reported({"backend.name": backend, "seed": seed}) as options:
        document, overrides = Document.read(scenario), _parsed(assignments) | options
        points = document.points(overrides)
        _check_empty(out)
        if any(point.scenario.backend.name == "process" for point in points):
            preload()  # its imports run beside ours
        _check(document, points, overrides)
        _run(document, points, overrides, out)


@app.command()
def compare(
    scenarios: Annotated[list[str], typer.Argument(metavar="SCENARIO...", show_default=False, help="Scenario files.")],
    out: Out = None,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Measured runs a point.")] = 3,
    assignments: Assignments = None,
) -> None:
    """Measure every point of the scenarios' sweeps with real processes, and predict each by simulation.

    One worker is measured first, for a few seconds; the simulation knows that and nothing else. Prints predicted and
    measured speed-up and staleness; writes the table, the figure and every run.
    """
    with _reported():
        documents, overrides = [Document.read(path) for path in scenarios], _parsed(assignments)
        _check_empty(out)
        preload()
        for document in documents:
            _check(document, document.points(overrides), overrides)
        _compare(documents, overrides, out, repeats)


@app.command()
def validate(scenario: ScenarioFile, assignments: Assignments = None) -> None:
    """Check a scenario file: every point of its sweep, and what it names.

    Each task is built, with its data, its model and its optimizer; a run that it starts from or takes step times from
    is read. Nothing is trained.
    """
    with _reported():
        document, overrides = Document.read(scenario), _parsed(assignments)
        points = document.points(overrides)
        _check(document, points, overrides)
        typer.echo(f"{scenario}: valid; {len(points)} run{'s' if len(points) > 1 else ''}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a scenario file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command(name="list")
def list_(
    kind: Annotated[
        Literal["algorithms", "rules", "tasks", "backends", "models"] | None,
        typer.Argument(show_default=False, help="Only these; all, if nothing is said."),
    ] = None,
) -> None:
    """List what a scenario can name, and what each is."""
    console = _console()
    for title in [kind] if kind is not None else CATALOGUE:
        console.print(display.names(title, CATALOGUE[title]()))


# ---------------------------------------------------------------- errors and options


@contextlib.contextmanager
def _reported(options: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Give the dotted keys that options set; end the program with the status and the line that an error deserves."""
    given = {key: value for key, value in (options or {}).items() if value is not None}
    try:
        yield given
    except ScenarioError as error:
        message = str(error)
        for key in given:  # the user wrote --seed 1, not --set seed=1
            if message.startswith(said := f"--set {key}:"):
                message = f"--{key.partition('.')[0]}:{message.removeprefix(said)}"
        _end(WRONG_INPUT, message)
    except RunFailed as error:
        _end(FAILED, str(error))
    except KeyboardInterrupt as error:
        _end(INTERRUPTED, f"interrupted{error}")


def _end(status: int, message: str) -> NoReturn:
    typer.echo(" ".join(message.splitlines()), err=True)
    raise typer.Exit(status)


def _parsed(assignments: list[str] | None) -> dict[str, Any]:
    return dict(parse_assignment(text) for text in assignments or ())


def _check_empty(out: Path | None) -> None:
    """Before anything is imported or run. What cannot be read is refused by the run that takes it."""
    with contextlib.suppress(OSError):
        if out is not None and any(out.iterdir()):
            raise ScenarioError(f"--out: {out} is not empty; choose another")


def _check(document: Document, points: list[Point], overrides: Mapping[str, Any]) -> None:
    """Find now what of the points cannot be built, not after hours, at the last of them."""
    from asgd_lab.backends.build import build_task, initial_parameters
    from asgd_lab.backends.process.launch import check
    from asgd_lab.backends.run import with_samples

    seen: list[Any] = []
    for point in points:
        scenario = point.scenario
        with _located(document, point, overrides):
            if scenario.backend.name == "process":
                check(scenario)
        named = (scenario.task, scenario.warm_start, scenario.hardware.compute)
        if named in seen:
            continue
        seen.append(named)
        with _located(document, point, overrides):
            task = build_task(scenario)
            if scenario.warm_start is not None and scenario.warm_start.run is not None:
                initial_parameters(scenario, task)
            with_samples(scenario)


@contextlib.contextmanager
def _located(document: Document, point: Point, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Say in which file, on which line and at which point of its sweep."""
    try:
        yield
    except ScenarioError as error:
        if point.name and error.key:
            swept = [f"sweep.{key}" for key in point.values if covers(key, error.key)]
            error = ScenarioError.at((swept or [error.key])[-1], f"{error} (at the sweep's point {point.name})")
        raise document.located(error, overrides) from None


# ---------------------------------------------------------------- running


def _run(document: Document, points: list[Point], overrides: Mapping[str, Any], out: Path | None) -> None:
    import torch

    from asgd_lab.record.run import default_directory, file_name

    torch.set_num_threads(1)  # what a run computes must not depend on the cores of the machine
    console = _console()
    folder = out or default_directory(points[0].scenario.name)
    if not points[0].name:
        console.print(display.result(_execute(console, document, points[0], overrides, folder)))
    else:
        summaries = {}
        for number, point in enumerate(points, start=1):
            path = folder / file_name(point.name)
            summaries[point.name] = summary = _execute(console, document, point, overrides, path)
            display.say(console, f"[{number}/{len(points)}] {point.name}: {display.brief(summary)}")
        console.print(display.results(summaries))
    display.say(console, f"recorded in {folder}")


def _compare(documents: list[Document], overrides: Mapping[str, Any], out: Path | None, repeats: int) -> None:
    import pandas as pd
    import torch

    from asgd_lab.compare import compare, write
    from asgd_lab.record.run import default_directory

    torch.set_num_threads(1)
    console = _console()
    folder = out or default_directory("compare")
    rows: list[dict[str, Any]] = []
    try:
        for row in compare(documents, overrides, folder, repeats, lambda line: display.say(console, line)):
            rows.append(row)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; what was recorded is in {folder}") from None
    finally:  # the points that are done, however it ends
        if rows:
            table = pd.DataFrame(rows)
            console.print(display.comparison(table))
            for path in write(table, folder):
                display.say(console, f"wrote {path}")


def _execute(
    console: Console, document: Document, point: Point, overrides: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Run one point. However it ends but well, the error's message says where its record is."""
    from asgd_lab.backends.run import execute

    scenario, kept = point.scenario, f"; what was recorded is in {path}"
    title = f"{scenario.name} {point.name}".strip()
    display.say(console, f"{title}: backend {scenario.backend.name}, {display.crew(scenario.workers)}, into {path}")
    try:
        with _located(document, point, overrides), display.watching(console, scenario, live=_live(console)) as watch:
            summary = execute(scenario, path, watch)
    except RunFailed as error:
        raise RunFailed(f"{error}{kept}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(kept) from None
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt(kept)
    return summary


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def _live(console: Console) -> bool:
    """Whether somebody looks at a terminal that can be drawn on; a colour forced upon a pipe makes it none."""
    return sys.stdout.isatty() and not console.is_dumb_terminal
