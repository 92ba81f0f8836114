"""The command `replay`: its progress, and the verdict."""

from __future__ import annotations

from pathlib import Path

from asgd_lab.app import display, progress_display
from asgd_lab.errors import RunFailed
from asgd_lab.replays import replay as repeat


def replay(run_dir: Path) -> None:
    """Repeat the run in `run_dir`; RunFailed if any bit differs, ScenarioError if it cannot be repeated."""
    console = display.console()
    with progress_display.bars(console, live=display.is_live(console)) as shown:
        bar = shown.add_task("events", total=None)
        found = repeat(
            run_dir,
            lambda done, total: shown.update(bar, completed=done, total=total),
            lambda line: display.say(console, line),
        )
    if not found.same_bits:
        raise RunFailed(str(found))
    display.say(console, str(found))
