from __future__ import annotations

import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd_lab.errors import ScenarioError
from asgd_lab.record import tables
from asgd_lab.record.columns import EFFECTS, EVALS, GROUP_ROWS, KINDS, MINIBATCHES, Table
from asgd_lab.record.tables import NoRows, Recording, Rows
from tests.whole import sample

COUNTS = st.integers(-1, 2**62)
CLOCKS = st.integers(0, 2**50)  # 13 days: nanoseconds survive float64 seconds
NUMBERS = st.floats(width=64, allow_nan=True)
TEXTS = st.text(max_size=5)
CONTENTS = {"count": COUNTS, "clock": CLOCKS, "number": NUMBERS, "text": TEXTS, "kind": st.integers(0, len(KINDS) - 1)}


def effect(number: int, worker: int = 0) -> tuple[int, ...]:
    return (
        worker,
        number,
        number % len(KINDS),
        10 * number,
        10 * number + 5,
        number % 3,
        number,
        number % 4,
        2,
        64,
        -1,
        worker,
        1,
    )


def rows_of(table: Table, max_size: int = 40) -> st.SearchStrategy[list[tuple[int | float | str, ...]]]:
    return st.lists(st.tuples(*(CONTENTS[content] for _, content in table.columns)), max_size=max_size)


def write(directory: Path, table: Table, rows: list[tuple[int | float | str, ...]]) -> Path:
    path = table.file(directory)
    writer = Rows(path, table)
    for row in rows:
        writer.add(row)
    writer.close()
    return path


def same(stored: object, given: int | float | str, content: str) -> bool:
    match content:
        case "kind":
            return stored == KINDS[int(given)]
        case "clock":
            return isinstance(stored, float) and round(stored * 1e9) == given
        case "number":
            return stored == given or (math.isnan(float(given)) and math.isnan(stored))  # type: ignore[arg-type]
        case _:
            return stored == given


@pytest.mark.parametrize("table", [EFFECTS, MINIBATCHES, EVALS], ids=lambda table: table.name)
@given(data=st.data(), flush_rows=st.integers(1, 9), group_rows=st.integers(1, 9))
@settings(max_examples=30)
def test_rows_come_back_whatever_the_sizes_of_chunks(
    table: Table, data: st.DataObject, flush_rows: int, group_rows: int
) -> None:
    rows = data.draw(rows_of(table))
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "GROUP_ROWS", group_rows)
        path = write(Path(name), table._replace(flush_rows=flush_rows), rows)
        frame = tables.read(name, table.name)
        groups = pq.ParquetFile(path).metadata
        assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [
            min(group_rows, len(rows) - start) for start in range(0, len(rows), group_rows)
        ]
    assert list(frame.columns) == [column for column, _ in table.columns]
    assert len(frame) == len(rows)
    for stored, row in zip(frame.itertuples(index=False, name=None), rows, strict=True):
        for value, given_, (column, content) in zip(stored, row, table.columns, strict=True):
            assert same(value, given_, content), (column, value, given_)


def test_rows_come_back_around_a_full_group(tmp_path: Path) -> None:
    for extra in (-1, 0, 1):
        directory = tmp_path / str(extra)
        directory.mkdir()
        count = GROUP_ROWS + extra
        rows = Rows(EFFECTS.file(directory), EFFECTS)
        rows.extend(effect(number) for number in range(count))
        rows.close()
        frame = tables.read(directory, "effects")
        assert frame["round"].tolist() == list(range(count))
        assert frame["kind"].astype(str).tolist()[: len(KINDS)] == list(KINDS)


@given(rows=rows_of(EFFECTS), flushes=st.sets(st.integers(0, 40)), flush_rows=st.integers(1, 50))
@settings(max_examples=30)
def test_the_same_rows_are_the_same_bytes_however_they_were_flushed(
    rows: list[tuple[int, ...]], flushes: set[int], flush_rows: int
) -> None:
    digests = []
    for table, points in ((EFFECTS, set()), (EFFECTS._replace(flush_rows=flush_rows), flushes)):
        with TemporaryDirectory() as name:
            writer = Rows(EFFECTS.file(Path(name)), table)
            for index, row in enumerate(rows):
                writer.add(row)
                if index in points:
                    writer.flush()
            writer.close()
            digests.append(hashlib.sha256(EFFECTS.file(Path(name)).read_bytes()).digest())
    assert digests[0] == digests[1]


def test_extending_is_adding_one_by_one(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    write(one, EFFECTS, [effect(number) for number in range(100)])
    rows = Rows(EFFECTS.file(many), EFFECTS)
    rows.extend(effect(number) for number in range(60))
    rows.extend(effect(number) for number in range(60, 100))
    rows.close()
    assert EFFECTS.file(one).read_bytes() == EFFECTS.file(many).read_bytes()


@pytest.mark.parametrize("table", [EFFECTS, MINIBATCHES, EVALS], ids=lambda table: table.name)
def test_a_table_without_rows_has_its_columns_and_the_same_bytes_as_one_that_records_nothing(
    table: Table, tmp_path: Path
) -> None:
    path = write(tmp_path, table, [])
    expected = path.read_bytes()
    assert list(tables.read(tmp_path, table.name).columns) == [name for name, _ in table.columns]
    nothing = NoRows(path, table)
    nothing.add((1, 2))
    nothing.extend([(1, 2)])
    nothing.flush()
    nothing.close()
    assert path.read_bytes() == expected


def test_the_kind_is_dictionary_encoded_and_times_are_float64(tmp_path: Path) -> None:
    schema = pq.read_schema(write(tmp_path, EFFECTS, [effect(1)]))
    assert str(schema.field("kind").type) == "dictionary<values=string, indices=int8, ordered=0>"
    assert str(schema.field("start_s").type) == "double"
    assert tables.read(tmp_path, "effects")["kind"].dtype.name == "category"


def test_a_closed_table_leaves_no_journal_and_closes_again(tmp_path: Path) -> None:
    rows = Rows(EFFECTS.file(tmp_path), EFFECTS)
    rows.add(effect(0))
    rows.close()
    rows.close()
    assert os.listdir(tmp_path) == ["effects.parquet"]


@pytest.mark.parametrize("rows", [0, 6, 7, 8, 20, 30])
def test_the_first_rows_are_read_and_the_rest_counted(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "GROUP_ROWS", 7)
    write(tmp_path, EFFECTS, [effect(number) for number in range(20)])
    frame, left = tables.first(tmp_path, "effects", rows)
    assert frame["round"].tolist() == list(range(20))[:rows]
    assert left == 20 - len(frame)


def test_the_first_rows_of_a_run_that_was_killed_are_its_journals(tmp_path: Path) -> None:
    writer = Rows(EFFECTS.file(tmp_path), EFFECTS)
    for number in range(5):
        writer.add(effect(number))
        writer.flush()
    frame, left = tables.first(tmp_path, "effects", 3)
    assert frame["round"].tolist() == [0, 1, 2]
    assert left == 2


def test_a_row_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    for table in (EFFECTS, EVALS):
        rows = Rows(table.file(tmp_path), table)
        with pytest.raises(ValueError, match=r"reshape|argument"):
            rows.extend([(1, 2, 3)] * table.flush_rows)


def test_reading_what_is_no_run_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"is not a run directory; effects\.parquet is missing"):
        tables.read(tmp_path, "effects")


KILLED = """
import sys
from pathlib import Path
from asgd_lab.record.columns import EFFECTS, EVALS
from asgd_lab.record.tables import Rows
directory = Path(sys.argv[1])
effects = Rows(EFFECTS.file(directory), EFFECTS._replace(flush_rows=10))
evals = Rows(EVALS.file(directory), EVALS)
evals.add((5, 1, 2, "server", "test", "error", 0.5))
for number in range(47):
    effects.add((0, number, number % 5, 0, 1, 0, -1, -1, 1, 4, -1, 0, 1))
print("ready", flush=True)
sys.stdin.read()
"""


def killed_run(directory: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def test_a_killed_process_loses_only_rows_that_were_not_flushed(tmp_path: Path) -> None:
    killed_run(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["effects.parquet.part", "evals.parquet.part"]
    assert tables.read(tmp_path, "effects")["round"].tolist() == list(range(40))
    assert tables.read(tmp_path, "evals")["value"].tolist() == [0.5]

    journal = tmp_path / "effects.parquet.part"
    whole = journal.read_bytes()
    for size in range(0, len(whole), 97):  # a tear anywhere leaves the batches before it
        journal.write_bytes(whole[:size])
        read = tables.read(tmp_path, "effects")["round"].tolist()
        assert read == list(range(len(read)))
        assert len(read) % 10 == 0


def test_each_flipped_bit_of_a_journal_is_found(tmp_path: Path) -> None:
    killed_run(tmp_path)
    path = tmp_path / "effects.parquet.part"
    content = path.read_bytes()
    for bit in sample(range(8 * len(content)), 400):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ScenarioError, match=r"effects.parquet.part: is damaged: a block's checksum"):
            tables.read(tmp_path, "effects")


def test_a_journal_that_no_longer_fits_on_the_disk_keeps_its_rows_for_the_table(tmp_path: Path) -> None:
    rows = Rows(EFFECTS.file(tmp_path), EFFECTS)
    rows.extend(effect(number) for number in range(100))
    rows.flush()
    rows.extend(effect(number) for number in range(100, 5000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "effects.parquet.part").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            rows.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    rows.add(effect(5000))
    rows.flush()
    rows.close()
    assert tables.read(tmp_path, "effects")["round"].tolist() == list(range(5001))


@given(round_=st.integers(-1, 10**6))
def test_recording_keeps_all_every_hundredth_or_no_round(round_: int) -> None:
    assert Recording.named("all").keep_round(round_)
    assert Recording.named("sampled").keep_round(round_) == (round_ in range(1, 10**6 + 1, 100))
    assert not Recording.named("summary").keep_round(round_)


def test_a_table_that_is_not_whole_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "effects.parquet").write_bytes(b"torn")
    with pytest.raises(ScenarioError) as refused:
        tables.read(tmp_path, "effects")
    assert str(refused.value).startswith(f"{tmp_path} cannot be read: effects.parquet: is not a whole table: ")
    assert "\n" not in str(refused.value)


def test_rows_that_memory_cannot_hold_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes of equal rows may be billions of them."""
    write(tmp_path, EFFECTS, [effect(0)] * 10_000)
    monkeypatch.setattr(tables, "free_memory_bytes", lambda: 1_000_000)
    with pytest.raises(ScenarioError, match=r"effects\.parquet: its 10,000 rows take more memory than is free"):
        tables.read(tmp_path, "effects")
    assert len(tables.first(tmp_path, "effects", 10)[0]) == 10
