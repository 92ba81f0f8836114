"""The table of the kept benchmarks, as the documentation's page shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.report import Kept, read, spread

RESULTS = Path(__file__).parents[2] / "analysis" / "benchmarks.json"


def table(rows: Sequence[Kept]) -> str:
    """The dates and machines of the measurements, and the rows that are told."""
    told = [row for row in rows if row["told"]]
    where = dict.fromkeys(f"{row['date']}, {row['machine']}" for row in told)
    lines = [f"Measured {'; '.join(where)}:", "", "| | median [quartiles] | n |", "| --- | --- | --- |"]
    lines += [f"| {_cell(row['what'])} | {_cell(spread(row))} | {row['n']} |" for row in told]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(table(read(RESULTS)))
