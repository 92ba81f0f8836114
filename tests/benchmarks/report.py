"""The rows that benchmarks measure: in words for a terminal, and in a file for the documentation's table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asgd_lab.record.machine import machine

Kept = dict[str, Any]
"""benchmark, what, median, low and high quartile, n, unit, told, date, machine"""


class Row(NamedTuple):
    """One quantity, measured `len(values)` times; `told` says whether the documentation's table has it."""

    what: str
    values: Sequence[float]
    unit: str = ""
    told: bool = True


def kept(benchmark: str, row: Row) -> Kept:
    """The row with its quartiles, as it is written to the file."""
    low, median, high = (float(np.percentile(row.values, q)) for q in (25, 50, 75))
    quartiles = {"low": low, "high": high} if len(row.values) > 1 else {"low": None, "high": None}
    here = machine()
    return {
        **{"benchmark": benchmark, "what": row.what, "median": median, **quartiles},
        **{"n": len(row.values), "unit": row.unit, "told": row.told, "date": datetime.now(UTC).date().isoformat()},
        "machine": f"{here['usable_cores']} cores of {here['cpu']}, {here['platform'].partition('-')[0]}",
    }


def spread(row: Mapping[str, Any]) -> str:
    """Median with the quartiles, where there are any: one measurement has none."""
    unit = f" {row['unit']}" if row["unit"] else ""
    if row["low"] is None:
        return f"{_number(row['median'])}{unit}"
    return f"{_number(row['median'])} [{_number(row['low'])}, {_number(row['high'])}]{unit}"


def read(path: Path) -> list[Kept]:
    """The rows that are kept; none where nothing has been measured yet."""
    if not path.exists():
        return []
    rows: list[Kept] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def write(path: Path, benchmark: str, rows: Iterable[Kept]) -> None:
    """Keep these rows in the place of the benchmark's earlier ones; the file is whole at any moment."""
    others = [row for row in read(path) if row["benchmark"] != benchmark]
    text = json.dumps([*others, *rows], indent=1, ensure_ascii=False)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    os.replace(unfinished, path)


def _number(value: float) -> str:
    """Three digits that count; a count in full."""
    if value == round(value):
        return f"{value:,.0f}"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"
