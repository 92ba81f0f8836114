"""The command line: it reads arguments, calls, and turns errors into one line and an exit status; nothing else.

torch, pandas and pyarrow are imported only when a command needs them: help, and the error about a wrong file, come at
once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import asgd_lab
from asgd_lab import interrupts, new_scenarios, output
from asgd_lab.app import display, explain_arguments, watch_command
from asgd_lab.app.options import Assignments, Backend, Command, Out, ScenarioFile, ScenarioFiles, Trust, Version
from asgd_lab.app.reporting import FAILED, reported
from asgd_lab.app.terminal_tables import Described
from asgd_lab.app.usage import Program, check_empty
from asgd_lab.backends.real.preload import MODULES, POOL_MODULES, preload
from asgd_lab.catalogue import CATALOGUE
from asgd_lab.errors import ScenarioError
from asgd_lab.record.machine import usable_cores
from asgd_lab.request import Assigned, Request, document_of
from asgd_lab.scenario import Point, carried, parse_assignment, presets
from asgd_lab.validation import validated

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,  # brackets in a help text are brackets
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; status 1 if output could not be written, even where all else was done."""
    try:
        app(prog_name="asgd-lab")
    except SystemExit as end:
        lost = output.finish()
        raise SystemExit(end.code or (FAILED if lost else 0)) from None
    finally:
        # All output is written: a signal could only disturb the interpreter's own last steps.
        interrupts.ignore()


@app.callback()
def program(version: Version = False) -> None:
    """Asynchronous data-parallel training: one scenario, run for real or simulated."""


@app.command(cls=Command, short_help="Run a scenario, or every point of its sweep.")
def run(
    scenario: ScenarioFile,
    backend: Backend = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="In place of the file's seed.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="Run every point with N seeds from its own."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="Simulated points at a time; else a core each."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out: run what is not done there.")] = False,
    trust: Trust = False,
    assignments: Assignments = None,
) -> None:
    """Run a scenario, or every point of its sweep, each into a directory of its own.

    Points that are simulated run several at a time, points that are measured one after another. With several seeds, in
    the sweep or by --seeds, results are means with 95% intervals.

    Exit status: 0 done; 1 a run failed; 2 the input was wrong; 130 interrupted. What was recorded is kept.
    """
    with reported({"backend.name": backend, "seed": seed}, trust=trust) as options:
        display.warn(carried.shadowed(scenario))
        changes = _assigned(assignments, options)
        document = document_of(scenario, changes)
        if resume and out is not None and trust:
            from asgd_lab.run_points import find_sources

            find_sources(out)
        request = Request.of(document, changes, seeds)
        if resume and out is None:
            raise ScenarioError("--resume: needs --out DIR, the directory to go on in")
        if not resume:
            check_empty(out, request)
        jobs = jobs or usable_cores()
        _preload(request.points, jobs)
        interrupts.heed()
        request.check()
        display.warn(request.warnings())
        from asgd_lab.app import run_command

        failures = run_command.run(request, out, jobs, resume)
    for failure in failures:
        typer.echo(" ".join(failure.splitlines()), err=True)
    if failures:
        raise typer.Exit(FAILED)


@app.command(cls=Command, short_help="Predict a sweep, measure it, and compare.")
def compare(
    scenarios: ScenarioFiles,
    out: Out = None,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Measured runs a point.")] = 3,
    trust: Trust = False,
    assignments: Assignments = None,
) -> None:
    """Measure every point of the scenarios' sweeps with real processes, and predict each by simulation.

    One worker is measured first, for a few seconds; the simulation knows that and nothing else. Prints predicted and
    measured speed-up and staleness; writes the table, the figure and every run.
    """
    with reported(trust=trust):
        display.warn(line for scenario in scenarios for line in carried.shadowed(scenario))
        changes = _assigned(assignments)
        requests = [Request.of(scenario, changes) for scenario in scenarios]
        check_empty(out)
        preload()
        interrupts.heed()
        from asgd_lab.app import compare_command

        compare_command.run(requests, out, repeats)


@app.command(cls=Command, short_help="Measure this machine for simulations.")
def calibrate(
    scenario: ScenarioFile,
    file: Annotated[
        Path,
        typer.Option("--file", "-o", metavar="FILE", show_default=False, help="A new file, such as mine.yaml."),
    ],
    out: Out = None,
    trust: Trust = False,
    assignments: Assignments = None,
) -> None:
    """Measure one worker of a scenario with real processes for a few seconds, and fit the costs of this machine.

    Writes the simulation of the scenario with these costs, timing alone: `asgd-lab run FILE` runs it, and its hardware
    can be copied into other scenarios.
    """
    with reported(trust=trust):
        display.warn(carried.shadowed(scenario))
        interrupts.heed()
        from asgd_lab import calibrations

        console = display.console()
        calibrations.check_new(file)
        found = calibrations.calibrated(
            Request.of(scenario, _assigned(assignments)), out, lambda line: display.say(console, line)
        )
        display.say(console, f"wrote {found.save(file)}; recorded in {found.path}")


@app.command(short_help="Repeat a recorded run and compare the bits.")
def replay(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", show_default=False, help="The directory of a run.")],
    trust: Trust = False,
) -> None:
    """Repeat a recorded run in one process, in its recorded order, and compare the bits.

    Every push is compared with the recorded one, versions with their recorded hashes, and the final parameters bit for
    bit. A run that was killed, resumed, or lost workers on the way is repeated as it went.

    Exit status: 0 the same bits; 1 a difference, which is named; 2 there is nothing to repeat.
    """
    with reported(trust=trust):
        from asgd_lab.app.replay_command import replay as repeat

        interrupts.heed()
        repeat(run_dir)


app.command(short_help="Show the progress of a run of another terminal.")(watch_command.watch)
app.command(short_help="Say what a run owes to staleness and other causes.")(explain_arguments.explain)


@app.command(short_help="Write a run's trained model as a state_dict.")
def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", show_default=False, help="The directory of a run.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A new file, such as model.pt.")],
    trust: Trust = False,
) -> None:
    """Write the final model of a run, or that of its last checkpoint, as a state_dict: torch.load reads it anywhere.

    Buffers are those that the server's parameters are evaluated with. The model is built again to name its tensors, so
    the code and the data that the scenario names must be there. `asgd_lab.Run.open(RUN_DIR).model()` returns the module
    itself.
    """
    with reported(trust=trust):
        from asgd_lab.model_export import export as write

        interrupts.heed()
        typer.echo(write(run_dir, file, lambda line: display.say(display.console(), line)))


@app.command(short_help="Write runs and sweeps for TensorBoard.")
def tensorboard(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", show_default=False, help="Directories of runs, or of sweeps with all theirs."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where `tensorboard --logdir` looks.")] = Path(
        "runs/tensorboard"
    ),
) -> None:
    """Write recorded runs as TensorBoard's files: losses and errors, staleness, held-out metrics, over the run's clock.

    Curves are the means over the workers; each worker's own are in the group `workers`. Written again, a run's curves
    take the place of the earlier ones.

    Needs a package: pip install tensorboardX.
    """
    with reported():
        from asgd_lab.figures import scalars

        interrupts.heed()
        console = display.console()
        for each in (each for path in paths for each in scalars.write(path, out)):
            written = f"{each.run_dir}: {each.scalars} scalars in {each.folder}"
            display.say(console, each.why if each.folder is None else written)


@app.command(short_help="Write one page about runs, sweeps and comparisons.")
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="DIR", show_default=False, help="Directories of runs, sweeps or comparisons."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", show_default=False,
            help="The page; else report.html in DIR, or in the current directory for several.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Write one self-contained page: how many workers, which n_sync, how stale, where the time goes, how far to trust
    it. Several directories stand side by side.

    The page loads nothing from a network. Its plots can be zoomed; without JavaScript they are pictures.

    Needs a package: pip install plotly.
    """
    with reported():
        from asgd_lab.reports import writing

        interrupts.heed()
        display.say(display.console(), f"wrote {writing.write(paths, out)}")


@app.command(cls=Command, short_help="Check a scenario file without training.")
def validate(scenario: ScenarioFile, trust: Trust = False, assignments: Assignments = None) -> None:
    """Check a scenario file: every point of its sweep, and what it names.

    Each task is built, with its data, its model and its optimizer; a run that it starts from or takes step times from
    is read. Two minibatches are tried, and forgotten. Code that the file names by package.module:name is imported only
    with --trust; without it everything else is checked, and what was not is said.
    """
    with reported(trust=trust):
        interrupts.heed()
        display.warn(carried.shadowed(scenario))
        found = validated(scenario, _assigned(assignments))
        display.warn(found.warnings)
        typer.echo(str(found))
        for key, name in found.unchecked:
            typer.echo(f"{scenario}: {key}: {name} was not imported, so not checked; --trust imports and runs it")


@app.command(short_help="Print the JSON Schema of a scenario file.")
def schema() -> None:
    """Print the JSON Schema of a scenario file, for editors."""
    typer.echo(json.dumps(asgd_lab.schema(), indent=2, ensure_ascii=False))


@app.command(short_help="Write a scenario to start from.")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A new file, such as mine.yaml.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="NAME", show_default=False, help="The carried scenario to copy; else a small one."
        ),
    ] = None,
) -> None:
    """Write a scenario with comments, to change and to run. Nothing that exists is overwritten.

    With --from it is a copy of a carried scenario, with the Python files that the scenario names.
    """
    with reported():
        for path in new_scenarios.written(file, source):
            typer.echo(f"wrote {path}")


@app.command(name="list", short_help="List the carried scenarios, and what a scenario can name.")
def list_(
    kind: Annotated[
        Literal["scenarios", "algorithms", "rules", "codecs", "tasks", "backends", "loggers", "presets", "models"]
        | None,
        typer.Argument(show_default=False, help="Only these; all, if nothing is said."),
    ] = None,
) -> None:
    """List the carried scenarios with the question that each answers, and all that a scenario can name; presets with
    each number and where it is from.
    """
    console = display.console()
    if kind == "presets":
        console.print(display.grades())
        for name in presets.names():
            console.print("", display.machine(presets.read(name)))
        return
    for title in [kind] if kind is not None else CATALOGUE:
        console.print(Described(title, CATALOGUE[title]()))


def _assigned(assignments: list[str] | None, options: Mapping[str, Any] | None = None) -> Assigned:
    return Assigned([*map(parse_assignment, assignments or ()), *(options or {}).items()])


def _preload(points: Sequence[Point], jobs: int) -> None:
    """Start the fork server if the points need processes: its imports run in parallel with ours."""
    measured = [point for point in points if point.scenario.backend.execution.measured]
    together = min(jobs, len(points) - len(measured)) > 1
    if measured or together:
        preload([*(MODULES if measured else ()), *(POOL_MODULES if together else ())])
