"""The display of a run, during it and after it; nothing here decides, waits or writes a file."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.console import Group as Stack
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from asgd_lab.record.machine_load import Load
from asgd_lab.record.summary import LATENESS_ALLOWED
from asgd_lab.scenario import Scenario, presets
from asgd_lab.terminal_tables import Columns, Pairs

if TYPE_CHECKING:
    import pandas as pd

    from asgd_lab.backends.outcome import Progress, Watch, WorkerLook

PLAIN_WIDTH = 10_000  # of a file or a pipe: nothing is folded or left out there
PROSE_WIDTH = 120  # of sentences, even on a wider terminal
PLAIN_EVERY_S = 5.0
SHOWN_WORKERS = 16  # for more workers only the number in each state is shown
BAR_NAME_WIDTH = 48  # a longer name takes several lines
BUSY = 0.8  # utilisation above which a server or a link is reported
SHOWN_RESOURCES = 4
MOST_WARNINGS = 20
STYLES = {"starting": "dim", "fetching": "cyan", "training": "green", "pushing": "yellow", "left": "dim"}


def console() -> Console:
    """Standard output, as wide as its terminal, or PLAIN_WIDTH for a file or a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def is_live(console: Console) -> bool:
    """Whether standard output is a terminal that can be redrawn; a pipe is not, even if colours are forced on it."""
    return sys.stdout.isatty() and not console.is_dumb_terminal


def say(console: Console, line: str) -> None:
    """Print one line as it is, without wrapping."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


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
        if progress.seconds > 0 and time.monotonic() >= due_s:
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


def warn(lines: Iterable[str], known: Collection[str] = (), about: str = "") -> None:
    """Print warnings on standard error, except known ones, and at most MOST_WARNINGS."""
    new = [line for line in lines if line not in known]
    for line in [
        *new[:MOST_WARNINGS],
        *([f"and {len(new) - MOST_WARNINGS:,} more"] if len(new) > MOST_WARNINGS else []),
    ]:
        with contextlib.suppress(OSError):
            print(f"warning: {about}{line}", file=sys.stderr, flush=True)


def result(summary: Mapping[str, Any]) -> Pairs:
    """The numbers of one run."""
    share, late = overruns(summary), lateness(summary)
    staleness, busy = summary["staleness"], summary["utilisation"]
    emulated = " on emulated devices" if summary.get("emulated") else ""
    rows = [
        ("ran", f"{crew(summary['workers'])}{emulated}, backend {summary['backend']}, seed {summary['seed']}"),
        ("makespan", f"{_seconds(summary)} s" if _timed(summary) else "this backend has no clock"),
        ("minibatches", f"{summary['minibatches']:,}" + (f", {_rate(summary)} a second" if _timed(summary) else "")),
        ("updates", f"{summary['updates']:,}; pushes dropped: {summary['dropped']:,}"),
        (
            "others' pushes" if "staleness_counts" in summary else "staleness",
            f"mean {staleness['mean']:.2f}, max {staleness['max']}",
        ),
        ("utilisation", f"workers {busy['workers']:.0%}, server {busy['server']:.0%}"),
        *_where_time_goes(summary),
        *((name.replace("_", " "), f"{value:.4g}") for name, value in summary["final"].items()),
    ]
    if share is not None:
        rows.append(("overruns", f"{share:.2%} of the minibatches took longer than stated"))
    if late is not None:
        verdict = "" if late <= LATENESS_ALLOWED else f"; above {LATENESS_ALLOWED:.0%} the measurement is invalid"
        rows.append(("lateness", f"{late:.2%} longer than stated in the mean{verdict}"))
    load = Load(**summary["machine_load"]) if "machine_load" in summary else None
    if load is not None and load.is_busy:
        rows.append(("measured", f"{load}"))
    return Pairs([(Text(name, "bold"), value) for name, value in rows])


def _where_time_goes(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The shares of workers' time, and the nearly saturated servers and links; only simulations have them."""
    spent = summary.get("time", {}).get("mean", {})
    total = sum(spent.values())
    largest = sorted(spent.items(), key=lambda item: -item[1])
    shares = [f"{name} {seconds / total:.0%}" for name, seconds in largest if seconds >= 0.005 * total > 0]
    if shares:
        yield "workers' time", ", ".join(shares)
    resources = sorted(summary.get("resources", ()), key=lambda one: -one["utilisation"])
    busy = [f"{one['name']} {one['utilisation']:.0%}" for one in resources if one["utilisation"] > BUSY]
    if busy:
        more = f" and {len(busy) - SHOWN_RESOURCES} more" if len(busy) > SHOWN_RESOURCES else ""
        yield "nearly saturated", ", ".join(busy[:SHOWN_RESOURCES]) + more


def crew(workers: int) -> str:
    """The number of workers in words."""
    return f"{workers:,} worker{'s' if workers != 1 else ''}"


def overruns(summary: Mapping[str, Any]) -> float | None:
    """The share of an emulated run's minibatches that took longer than stated; None for other runs."""
    share: float | None = summary.get("overruns", {}).get("share")
    return share


def lateness(summary: Mapping[str, Any]) -> float | None:
    """The lateness of an emulated run by which it is judged: excess over the stated times; None for other runs."""
    late: float | None = summary.get("lateness", {}).get("judged")
    return late


def brief(summary: Mapping[str, Any]) -> str:
    """One run of a sweep, in a line."""
    clock = f"{_seconds(summary)} s, {_rate(summary)} minibatches/s, " if _timed(summary) else ""
    final = "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in _tested(summary).items())
    return f"{clock}staleness {summary['staleness']['mean']:.2f}{final}"


def comparison(table: pd.DataFrame) -> Columns:
    """Predicted beside measured, a row per point."""
    headings = ("scenario", "device", "n_sync", "workers", "predicted", "measured", "± 95%", "error", "staleness p/m")
    important = ("workers", "device", "predicted", "measured", "late", "error", "n_sync", "± 95%", "server busy")
    rows = []
    for row in table.to_dict("records"):
        half = row["measured_high"] - row["measured_mean"]
        rows.append(
            (
                row["scenario"],
                row["group"],
                str(row["n_sync"]),
                str(row["workers"]),
                f"{row['predicted']:.2f}",
                f"{row['measured_mean']:.2f}{' busy machine' if row['busy'] else ''}",
                "-" if math.isnan(half) else f"{half:.2f}",
                f"{row['error']:+.1%}",
                f"{row['staleness_predicted']:.2f} / {row['staleness_measured']:.2f}",
                f"{row['server_utilisation']:.0%}{' saturated' if row['saturated'] else ''}",
                f"{row['lateness']:.2%}{'' if row['valid'] else ' INVALID'}" if row["group"] == "emulated" else "-",
            )
        )
    title = "speed-up over one device that only computes"
    return Columns((*headings, "server busy", "late"), rows, important, title, left=frozenset({"device"}))


def machine(preset: presets.Preset) -> Constrain:
    """A preset in full: each value as in a scenario, and its source below."""
    lines = [Padding(Text(preset.description), (0, 0, 0, 2), expand=False)]
    for key, value in presets.leaves(preset.hardware):
        lines.append(Padding(Text.assemble((key, "bold"), f" = {_value(value)}"), (0, 0, 0, 4), expand=False))
        if key in preset.sources:
            lines.append(Padding(Text(preset.sources[key], "dim"), (0, 0, 0, 8), expand=False))
    return Constrain(Stack(Text(preset.name, "bold"), *lines), PROSE_WIDTH)


def grades() -> Constrain:
    """The meaning of the grades, the first words of a preset's sources."""
    words = "; ".join(f"{grade}: {meaning}" for grade, meaning in presets.GRADES.items())
    return Constrain(Text(f"Where each number is from begins with a grade ({words}).", "italic"), PROSE_WIDTH)


def _value(value: object) -> str:
    """The value as in a scenario, with an exponent that is a multiple of 3."""
    match value:
        case bool() | None:
            return json.dumps(value)
        case int():
            return f"{value:_}"
        case float():
            power = 0 if value == 0 or 1e-3 <= abs(value) < 1e6 else math.floor(math.log10(abs(value))) // 3 * 3
            return f"{value / 10.0**power:.6g}" + (f"e{power}" if power else "")
        case _:
            return str(value)


def _timed(summary: Mapping[str, Any]) -> bool:
    return summary.get("clock") != "effects"


def _seconds(summary: Mapping[str, Any]) -> str:
    return f"{summary['makespan_s']:,.3f}"


def _rate(summary: Mapping[str, Any]) -> str:
    return f"{summary['minibatches_per_s']:,.1f}"


def _tested(summary: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in summary["final"].items() if name.startswith("test_")}
