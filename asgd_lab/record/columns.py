"""The columns of a run's tables: the name of each, and the kind of its values."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

KINDS = ("fetch", "train", "push", "apply", "grant", "adopt", "measure", "to_host", "up", "down", "to_device")
GROUP_ROWS = 65_536
SAMPLED_EVERY = 100

Row = tuple[int | float | str, ...]


class Table(NamedTuple):
    """A table's name and columns: count, clock (nanoseconds in, seconds out), kind (KINDS' index), number or text."""

    name: str
    columns: tuple[tuple[str, str], ...]
    flush_rows: int = GROUP_ROWS

    def file(self, directory: Path) -> Path:
        """The table's path in a run directory."""
        return directory / f"{self.name}.parquet"


EFFECTS = Table(
    "effects",
    (
        ("worker", "count"),
        ("round", "count"),
        ("kind", "kind"),
        ("start_s", "clock"),
        ("end_s", "clock"),
        ("wait_s", "clock"),
        ("version", "count"),
        ("staleness", "count"),
        ("steps", "count"),
        ("bytes", "count"),
        ("shard", "count"),  # the server, or the part, of this row; -1 in a worker's row of the whole vector
        ("client", "count"),  # the worker of this effect, also in a server's row, where `worker` is -1
        ("incarnation", "count"),  # of the client: client, incarnation and round name one push in its apply row
    ),
)
MINIBATCHES = Table(
    "minibatches",
    (("worker", "count"), ("step", "count"), ("time_s", "clock"), ("loss", "number"), ("error", "number")),
)
EVALS = Table(
    "evals",
    (
        ("time_s", "clock"),
        ("version", "count"),
        ("minibatches", "count"),
        ("parameters", "text"),
        ("split", "text"),
        ("metric", "text"),
        ("value", "number"),
    ),
    flush_rows=1,  # an evaluation costs far more than a write, so none is buffered
)
DISTANCES = Table(
    "distances",
    (("time_s", "clock"), ("worker", "count"), ("version", "count"), ("staleness", "count"), ("distance", "number")),
)
TABLES = {table.name: table for table in (EFFECTS, MINIBATCHES, EVALS, DISTANCES)}
