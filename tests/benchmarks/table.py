"""README's table of what was measured: `python -m tests.benchmarks.table` writes it anew from the kept file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.report import Kept, read, spread

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "analysis" / "benchmarks.json"
README = ROOT / "README.md"
BEGIN = "<!-- written by `make bench-table` from analysis/benchmarks.json -->"
END = "<!-- end of what `make bench-table` writes -->"


def table(rows: Sequence[Kept]) -> str:
    """When and where it was measured, and the rows that are told."""
    told = [row for row in rows if row["told"]]
    where = dict.fromkeys(f"{row['date']}, {row['machine']}" for row in told)
    lines = [f"Measured {'; '.join(where)}:", "", "| | median [quartiles] | n |", "| --- | --- | --- |"]
    lines += [f"| {_cell(row['what'])} | {_cell(spread(row))} | {row['n']} |" for row in told]
    return "\n".join(lines)


def block(text: str) -> str:
    """What stands between the two comments."""
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip("\n")


def refreshed(text: str, rows: Sequence[Kept]) -> str:
    """README with the table of these rows in the place of the earlier one."""
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    return f"{before}\n{table(rows)}\n{after}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text(encoding="utf-8"), read(RESULTS)), encoding="utf-8")
