"""The command `watch`: the progress of a run of another terminal or host, and its end; torch is imported as it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asgd_lab import interrupts
from asgd_lab.app import display, progress_display
from asgd_lab.app.reporting import reported
from asgd_lab.errors import RunFailed
from asgd_lab.trust import displaying


def watch(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", show_default=False, help="The directory of a run.")],
) -> None:
    """Show the progress of a run of another terminal, or of another host that shares its directory, until it ends.
    Ctrl-C ends the display alone. A backend without a clock tells no progress.

    Exit status: 0 it has ended; 1 it failed, or died without finishing; 2 the directory is no run's.
    """
    with reported():
        interrupts.heed()
        _show(run_dir)


def _show(run_dir: Path) -> None:
    from asgd_lab import watching
    from asgd_lab.runs import Run

    watching.check(run_dir)
    console, run = display.console(), Run(run_dir)
    with displaying():  # its values are shown; its code is not needed
        scenario = run.scenario
    with progress_display.watching(console, scenario, live=display.is_live(console)) as show:
        for progress in watching.looks(run_dir):
            show(progress)
    status = run.status
    if status == "failed":
        raise RunFailed(f"{run_dir}: the run failed: {run.summary.get('failure', 'nobody knows why')}")
    display.say(console, f"{run_dir}: {status}")
    if "updates" in run.summary:
        console.print(display.result(run.summary))
