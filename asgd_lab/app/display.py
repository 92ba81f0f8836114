"""The display of results, presets, warnings and single lines; nothing here decides, waits or writes a file."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.console import Group as Stack
from rich.constrain import Constrain
from rich.padding import Padding
from rich.text import Text

from asgd_lab.app.terminal_tables import Columns, Pairs
from asgd_lab.scenario import presets
from asgd_lab.summary_words import rows

if TYPE_CHECKING:
    import pandas as pd


PLAIN_WIDTH = 10_000  # of a file or a pipe: nothing is folded or left out there
PROSE_WIDTH = 120  # of sentences, even on a wider terminal
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
    return Pairs([(Text(name, "bold"), value) for name, value in rows(summary)])


def comparison(table: pd.DataFrame) -> Columns:
    """Predicted beside measured, a row per point."""
    headings = ("scenario", "device", "n_sync", "workers", "predicted", "measured", "± 95%", "error", "staleness p/m")
    important = ("workers", "device", "predicted", "measured", "late", "error", "n_sync", "± 95%", "server busy")
    cells = []
    for row in table.to_dict("records"):
        half = row["measured_high"] - row["measured_mean"]
        cells.append(
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
    return Columns((*headings, "server busy", "late"), cells, important, title, left=frozenset({"device"}))


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
