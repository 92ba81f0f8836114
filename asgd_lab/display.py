"""The display of results, presets, warnings and single lines; nothing here decides, waits or writes a file."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.console import Group as Stack
from rich.constrain import Constrain
from rich.padding import Padding
from rich.text import Text

from asgd_lab.record.machine_load import Load
from asgd_lab.record.summary import LATENESS_ALLOWED
from asgd_lab.scenario import presets
from asgd_lab.terminal_tables import Columns, Pairs

if TYPE_CHECKING:
    import pandas as pd


PLAIN_WIDTH = 10_000  # of a file or a pipe: nothing is folded or left out there
PROSE_WIDTH = 120  # of sentences, even on a wider terminal
BUSY = 0.8  # utilisation above which a server or a link is reported
SHOWN_RESOURCES = 4
MOST_WARNINGS = 20


def console() -> Console:
    """Standard output, as wide as its terminal, or PLAIN_WIDTH for a file or a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def is_live(console: Console) -> bool:
    """Whether standard output is a terminal that can be redrawn; a pipe is not, even if colours are forced on it."""
    return sys.stdout.isatty() and not console.is_dumb_terminal


def say(console: Console, line: str) -> None:
    """Print one line as it is, without wrapping."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


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
