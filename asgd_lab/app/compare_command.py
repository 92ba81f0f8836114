"""The command `compare`: each finished point, then the table, and the paths of table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from asgd_lab.app import display
from asgd_lab.comparisons import Listener, compare_into
from asgd_lab.reports import writing
from asgd_lab.reports.recorded import opened
from asgd_lab.scenario import Document


def run(documents: Sequence[Document], overrides: Mapping[str, Any], out: Path | None, repeats: int) -> None:
    """Measure and predict every point into `out`, and show the table, also if the comparison ends early."""
    shown = _Shown()
    found = compare_into(documents, overrides, out, repeats, shown)
    if all(document.points(overrides)[0].scenario.report for document in documents):
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
