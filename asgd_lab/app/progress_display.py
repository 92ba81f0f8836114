"""The display of progress: the newest numbers of a run, or bars; nothing here decides, waits or writes a file."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from asgd_lab.app.display import say
from asgd_lab.app.terminal_tables import Columns
from asgd_lab.scenario import Scenario

if TYPE_CHECKING:
    from asgd_lab.backends.outcome import Progress, Watch, WorkerLook

PLAIN_EVERY_S = 5.0
SHOWN_WORKERS = 16  # for more workers only the number in each state is shown
BAR_NAME_WIDTH = 48  # a longer name takes several lines
STYLES = {"starting": "dim", "fetching": "cyan", "training": "green", "pushing": "yellow", "left": "dim"}


@contextlib.contextmanager
def watching(console: Console, scenario: Scenario, *, live: bool) -> Iterator[Watch]:
    """A function to call with each progress of the run: it redraws the terminal, or prints a line every few seconds."""
    pace = Pace(scenario)
    if live:
        # The caller's thread redraws when there is something new: no extra thread competes with the run.
        with Live(console=console, auto_refresh=False, transient=True) as display:
            yield lambda progress: display.update(picture(scenario, progress, pace), refresh=True)
        return
    due_s = -math.inf

    def line(progress: Progress) -> None:
        nonlocal due_s
        if progress.seconds > 0 and progress.minibatches and time.monotonic() >= due_s:
            due_s = time.monotonic() + PLAIN_EVERY_S
            say(console, numbers(scenario, progress, pace))

    yield line


def bars(console: Console, *, live: bool, **pace: float) -> Bars:
    """Bars as wide as the terminal, each with its name, its share and the remaining time; they vanish at the end."""
    name = TextColumn(
        "{task.description}", markup=False, table_column=Column(overflow="fold", max_width=BAR_NAME_WIDTH)
    )
    columns = (name, BarColumn(bar_width=None), TaskProgressColumn(), TimeRemainingColumn())
    return Bars(*columns, console=console, disable=not live, transient=True, expand=True, **pace)  # type: ignore[arg-type]


class Pace:
    """The used share of the budget, and the remaining seconds of the host's clock at the rate so far."""

    def __init__(self, scenario: Scenario) -> None:
        self._budget, self._scale = scenario.budget, getattr(scenario.task, "scale", 1)
        self._first: tuple[float, float] | None = None  # host time and share at the first progress

    def share(self, progress: Progress) -> float | None:
        """The largest used share of any key of the budget; None if only an error can end the run."""
        budget = self._budget
        parts = (
            (progress.minibatches * self._scale, budget.minibatches),
            (progress.version, budget.updates),
            (progress.seconds, budget.seconds),
        )
        shares = [done / stated for done, stated in parts if stated is not None]
        return min(1.0, max(shares)) if shares else None

    def left_s(self, progress: Progress) -> float | None:
        """The remaining seconds; None until there is a rate."""
        share, now_s = self.share(progress), time.monotonic()
        if share is None or progress.seconds <= 0:
            return None
        began_s, before = self._first = self._first or (now_s, share)
        return (1.0 - share) * (now_s - began_s) / (share - before) if share > before else None


def numbers(scenario: Scenario, progress: Progress, pace: Pace) -> str:
    """The newest numbers in a line."""
    rate = progress.minibatches / progress.seconds if progress.seconds > 0 else 0.0
    parts = [f"{progress.seconds:.1f} s", f"{progress.minibatches:,} minibatches", f"{rate:,.1f} minibatches/s"]
    if progress.staleness >= 0:
        parts.append(f"staleness {progress.staleness}")
    for name, value in (("loss", progress.loss), ("error", progress.error)):
        if not math.isnan(value):
            parts.append(f"{name} {value:.4g}")
    if (share := pace.share(progress)) is not None:
        parts.append(f"{share:.0%} of the budget")
    if (left_s := pace.left_s(progress)) is not None:
        parts.append(f"{timedelta(seconds=round(left_s))} left")
    return ", ".join(parts)


def picture(scenario: Scenario, progress: Progress, pace: Pace) -> Table:
    """The newest numbers for a terminal, with a bar and the state of each worker."""
    share = pace.share(progress)
    table = Table.grid(expand=True)
    table.add_row(ProgressBar(total=None if share is None else 1.0, completed=share or 0.0))
    table.add_row(Text(numbers(scenario, progress, pace)))
    table.add_row(_workers(progress.workers))
    return table


def _workers(looks: Sequence[WorkerLook]) -> Columns | Text:
    if len(looks) > SHOWN_WORKERS:
        counted = sorted(Counter(look.state for look in looks).items())
        states = Text("   ").join(Text(f"{count} {state}", STYLES.get(state, "")) for state, count in counted)
        restarts = sum(look.restarts for look in looks)
        return states.append(f"   {restarts} restarts" if restarts else "")
    if not looks:
        return Text()
    headings = ("worker", "state", "minibatches", "staleness", "waiting", "restarts")
    rows = [
        (
            *(str(number), Text(look.state, STYLES.get(look.state, "")), f"{look.minibatches:,}"),
            *(str(look.staleness), f"{look.waiting:.0%}", str(look.restarts)),
        )
        for number, look in enumerate(looks)
    ]
    return Columns(headings, rows, headings[1:], lines=False, left=frozenset({"state"}))
