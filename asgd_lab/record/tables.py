"""The tables of a run, streamed to disk; the same rows give the same bytes, however they were flushed.

Rows arrive as tuples with times in integer nanoseconds of the run's clock and leave as columns with times in float64
seconds. During a run its rows are in a journal beside the table (`effects.parquet.part`); closing rewrites the journal
as Parquet in row groups of one fixed size. So a SIGKILL loses only rows that were never flushed, and `read` takes the
journal where the table is missing. Real processes keep their rows in files of their own, which become the tables when
the run ends. A flush reaches the kernel, not the disk: a power cut may lose more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asgd_lab.errors import ScenarioError
from asgd_lab.free_memory import free_memory_bytes
from asgd_lab.record import atomic_files, file_hashes, journal
from asgd_lab.record.checkpoints import PARTS
from asgd_lab.record.columns import GROUP_ROWS, KINDS, SAMPLED_EVERY, TABLES, Row, Table
from asgd_lab.record.journal import Journal
from asgd_lab.record.removal import remove_file

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Recording:
    """The sampling of rounds: effects and minibatches of the first of every `every` rounds are kept, none if it is 0.

    Rounds count from 1, so every worker has kept rows. A server's row is kept if the worker's round is. Evaluations are
    few and always kept.
    """

    every: int

    @classmethod
    def named(cls, record: str) -> Recording:
        """The sampling for the scenario's `record`: all, sampled or summary."""
        return cls({"all": 1, "sampled": SAMPLED_EVERY, "summary": 0}[record])

    def keep_round(self, round: int) -> bool:
        return self.every == 1 or (self.every > 0 and round % self.every == 1)


class Rows:
    """One table being written. Memory is bounded by `flush_rows`; close() finalises it and may be called twice."""

    def __init__(self, path: Path, table: Table) -> None:
        self._path, self._table = path, table
        self._rows: list[Row] = []
        self._torn = False
        self._journal_path = _journal(path)
        self._journal = Journal(self._journal_path)

    def add(self, row: Row) -> None:
        """Append one row, with its values in the order of the table's columns."""
        self._rows.append(row)
        if len(self._rows) >= self._table.flush_rows:
            self.flush()

    def extend(self, rows: Iterable[Row]) -> None:
        self._rows.extend(rows)
        if len(self._rows) >= self._table.flush_rows:
            self.flush()

    def flush(self) -> None:
        """Move buffered rows to the journal, where a kill cannot reach them; the table's bytes stay the same."""
        if not self._rows or self._torn:
            return
        rows, batch = self._rows, _batch(self._table, self._rows)
        # The rows leave memory just before the write: a Ctrl-C raised when the write returns must not write them twice.
        self._rows = []
        try:
            self._journal.add(batch)
        except OSError:  # a full disk: blocks behind the torn one could not be read again
            self._rows, self._torn = rows, True
            raise

    def close(self) -> None:
        """Write the Parquet table from the journal, whole or not at all, and remove the journal."""
        if not self._journal_path.exists():
            return
        self._journal.close()
        waiting = [_batch(self._table, self._rows)] if self._rows else []
        _write_parquet(self._path, self._table, chain(journal.read(self._journal_path), waiting))
        remove_file(self._journal_path.parent, self._journal_path.name)


class HeardRows:
    """A table that also tells its rows to somebody, by the table's name."""

    def __init__(self, rows: Rows, name: str, hear: Callable[[str, Sequence[Row]], None]) -> None:
        self._rows, self._name, self._hear = rows, name, hear
        self.flush, self.close = rows.flush, rows.close

    def add(self, row: Row) -> None:
        self._rows.add(row)
        self._hear(self._name, (row,))

    def extend(self, rows: Iterable[Row]) -> None:
        new = list(rows)
        self._rows.extend(new)
        self._hear(self._name, new)


class NoRows:
    """A table that stays empty, for a run that records its summary only."""

    def __init__(self, path: Path, table: Table) -> None:
        _write_parquet(path, table, iter(()))

    def add(self, row: Row) -> None:
        """Discard the row."""

    def extend(self, rows: Iterable[Row]) -> None:
        """Discard the rows."""

    def flush(self) -> None:
        """Do nothing: no row is buffered."""

    def close(self) -> None:
        """Do nothing: the constructor has written the empty table."""


def read(run_dir: Path | str, name: str) -> pd.DataFrame:
    """One table of a run, `kind` as a category; a killed run has only the rows that had been flushed."""

    table = TABLES[name]
    path = table.file(Path(run_dir))
    return _frame(table, run_dir, list(_stored(path, table, free_memory_bytes())))


def columns_of(run_dir: Path | str, name: str) -> list[str]:
    """The columns of a run's table on the disk; one of an earlier version may lack some that `read` adds."""
    table = TABLES[name]
    found = next((batch.schema.names for batch in _batches(table.file(Path(run_dir)))), None)
    return list(_schema(table).names) if found is None else [each for each in _schema(table).names if each in found]


def first(run_dir: Path | str, name: str, rows: int) -> tuple[pd.DataFrame, int]:
    """The first `rows` rows and the number of the others: for tables that may not fit in memory."""

    path = TABLES[name].file(Path(run_dir))
    kept, count = [], 0
    for batch in _stored(path, TABLES[name]):
        kept.append(batch.slice(0, rows - count))
        count += kept[-1].num_rows
        if count == rows:
            break
    return _frame(TABLES[name], run_dir, kept), _count(path, TABLES[name]) - count


def _frame(table: Table, run_dir: Path | str, batches: list[Any]) -> pd.DataFrame:
    import pyarrow as pa

    try:
        frame: pd.DataFrame = pa.Table.from_batches(batches, schema=_schema(table)).to_pandas()
    except Exception as error:
        raise _unreadable(table.file(Path(run_dir)), error) from error
    return frame


def _journal(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _schema(table: Table) -> Any:
    import pyarrow as pa

    types = {
        "count": pa.int64(),
        "clock": pa.float64(),
        "number": pa.float64(),
        "kind": pa.dictionary(pa.int8(), pa.string()),
        "text": pa.string(),
    }
    return pa.schema([(name, types[content]) for name, content in table.columns])


def _batch(table: Table, rows: list[Row]) -> Any:
    import pyarrow as pa

    contents = [content for _, content in table.columns]
    columns: Iterable[Any]
    if {"number", "text"}.isdisjoint(
        contents
    ):  # integers only: one pass over everything is twice as fast as one a column
        columns = np.fromiter(chain.from_iterable(rows), np.int64).reshape(len(rows), len(contents)).T
    else:
        columns = zip(*rows, strict=True)
    arrays = [_array(content, column) for content, column in zip(contents, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_schema(table))


def _array(content: str, column: Any) -> Any:
    import pyarrow as pa

    match content:
        case "count":
            return pa.array(np.ascontiguousarray(column, dtype=np.int64))
        case "clock":
            return pa.array(np.asarray(column, dtype=np.int64) / 1e9)
        case "kind":
            return pa.DictionaryArray.from_arrays(pa.array(np.asarray(column, dtype=np.int8)), pa.array(KINDS))
        case "number":
            return pa.array(np.asarray(column, dtype=np.float64))
        case _:
            return pa.array(column, pa.string())


def _write_parquet(path: Path, table: Table, batches: Iterator[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(table)
    options = {"version": "2.6", "compression": "zstd", "compression_level": 1, "write_page_checksum": True}
    with atomic_files.replacing(path) as file, pq.ParquetWriter(file, schema, **options) as writer:
        waiting, count = [], 0
        for batch in batches:
            waiting.append(batch)
            count += batch.num_rows
            if count >= GROUP_ROWS:
                joined = pa.Table.from_batches(waiting, schema=schema)
                full = count - count % GROUP_ROWS
                writer.write_table(joined.slice(0, full), row_group_size=GROUP_ROWS)
                waiting, count = joined.slice(full).to_batches(), count - full
        if count:
            writer.write_table(pa.Table.from_batches(waiting, schema=schema), row_group_size=GROUP_ROWS)


def _count(path: Path, table: Table) -> int:
    import pyarrow.parquet as pq

    if path.exists():
        return int(pq.read_metadata(path).num_rows)
    return sum(batch.num_rows for batch in _stored(path, table))


def _stored(path: Path, table: Table, most_bytes: int | None = None) -> Iterator[Any]:
    """Batches with all columns of the table; earlier versions wrote neither clients nor incarnations."""
    for batch in _batches(path, most_bytes):
        yield batch if batch.num_columns == len(table.columns) else _completed(batch, table, path)


def _completed(batch: Any, table: Table, path: Path) -> Any:
    import pyarrow as pa

    columns = []
    for name in _schema(table).names:
        if name in batch.schema.names:
            columns.append(batch.column(name))
        elif name == "client":  # -1 in a server's row: which push it applied is not known
            columns.append(batch.column("worker"))
        elif name == "incarnation":
            columns.append(pa.array(np.full(batch.num_rows, -1)))
        else:
            raise _unreadable(path, ValueError(f"it has no column {name}"))
    return pa.RecordBatch.from_arrays(columns, names=_schema(table).names)


def _batches(path: Path, most_bytes: int | None = None) -> Iterator[Any]:
    import pyarrow.parquet as pq

    if file_hashes.check(path.parent, path.name) or os.path.lexists(path):
        try:
            with atomic_files.opened(path) as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
                left = file.metadata.num_rows
                if left != sum(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)):
                    raise ValueError("its footer contradicts itself")
                if most_bytes is not None and 8 * left * file.metadata.num_columns > most_bytes:
                    raise MemoryError(f"its {left:,} rows take more memory than is free")
                for batch in file.iter_batches(batch_size=GROUP_ROWS):
                    left -= batch.num_rows
                    yield batch
                if left:
                    raise ValueError(f"it lacks {left:,} rows")
        except Exception as error:  # no library states which errors unknown bytes may raise
            raise _unreadable(path, error) from error
    elif (path.parent / PARTS).is_dir():
        raise ScenarioError(f"{path.parent}: is not a finished run: its rows are in {PARTS} yet; run --resume goes on")
    elif _journal(path).exists():
        yield from journal.read(_journal(path))
    else:
        raise ScenarioError(f"{path.parent}: is not a run directory; {path.name} is missing")


def _unreadable(path: Path, error: Exception) -> ScenarioError:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    what = "" if isinstance(error, MemoryError) else "is not a whole table: "
    return ScenarioError(f"{path.parent} cannot be read: {path.name}: {what}{why}")
