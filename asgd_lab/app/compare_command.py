"""The command `compare`: each finished point, then the table, and the paths of table and figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from asgd_lab import api
from asgd_lab.app import display
from asgd_lab.comparisons import Listener
from asgd_lab.reports import writing
from asgd_lab.reports.recorded import opened
from asgd_lab.request import Request


def run(requests: Sequence[Request], out: Path | None, repeats: int) -> None:
    """Measure and predict every point into `out`, and show the table, also if the comparison ends early."""
    shown = _Shown()
    found = api.compared(requests, out, repeats, shown)
    if all(request.points[0].scenario.report for request in requests):
        path = writing.write_beside(lambda: opened(found.path), lambda line: shown.warned([line]))
        if path is not None:
            shown.say(f"wrote {path}")


class _Shown(Listener):
    """Shows what happens on the terminal."""

    def __init__(self) -> None:
        self._console = display.console()

    def warned(self, lines: Sequence[str]) -> None:
        display.warn(lines)

    def say(self, line: str) -> None:
        display.say(self._console, line)

    def written(self, table: pd.DataFrame, paths: Sequence[Path]) -> None:
        self._console.print(display.comparison(table))
        for path in paths:
            display.say(self._console, f"wrote {path}")
