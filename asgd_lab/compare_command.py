"""The command `compare` and its messages: each finished point, then the table, and the paths of table and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from asgd_lab import compare, display
from asgd_lab.record.directory_locks import check_empty, made_and_locked, without_locks
from asgd_lab.record.removal import remove_if_empty
from asgd_lab.record.run import default_directory
from asgd_lab.scenario import Document


def run(documents: Sequence[Document], overrides: Mapping[str, Any], out: Path | None, repeats: int) -> None:
    """Measure and predict every point into `out`; ScenarioError if `out` is not empty. Finished points are kept."""
    console = display.console()
    folder = out or default_directory("compare")
    rows: list[dict[str, Any]] = []
    with made_and_locked(folder, "--out") as made:
        check_empty(folder, "--out")
        display.warn(without_locks(folder, "--out"))
        try:
            for row in compare.compare(documents, overrides, folder, repeats, lambda line: display.say(console, line)):
                rows.append(row)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"; what was recorded is in {folder}") from None
        finally:
            if rows:
                table = pd.DataFrame(rows)
                console.print(display.comparison(table))
                for path in compare.write(table, folder):
                    display.say(console, f"wrote {path}")
            elif made or out is None:
                remove_if_empty(folder)
