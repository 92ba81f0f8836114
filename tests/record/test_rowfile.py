from __future__ import annotations

import itertools
import mmap
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd_lab.record import rowfile
from asgd_lab.record.rowfile import RowFile, read_rows

LETTERS = {
    "b": st.integers(-(2**7), 2**7 - 1),
    "B": st.integers(0, 2**8 - 1),
    "h": st.integers(-(2**15), 2**15 - 1),
    "H": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "I": st.integers(0, 2**32 - 1),
    "q": st.integers(-(2**63), 2**63 - 1),
    "Q": st.integers(0, 2**64 - 1),
    "f": st.floats(width=32, allow_nan=False),
    "d": st.floats(allow_nan=False),
}


@given(data=st.data(), letters=st.lists(st.sampled_from(sorted(LETTERS)), min_size=1, max_size=6))
@settings(max_examples=60)
def test_rows_come_back_across_chunk_boundaries(data: st.DataObject, letters: list[str]) -> None:
    rows = data.draw(st.lists(st.tuples(*(LETTERS[letter] for letter in letters)), max_size=50))
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowfile, "_CHUNK_BYTES", 4096)
        path = Path(name) / "rows"
        file = RowFile(path, "".join(letters))
        for row in rows * 20:
            file.add(*row)
        growing = read_rows(path, "".join(letters))
        file.close()
        file.close()
        closed = read_rows(path, "".join(letters))
        assert path.stat().st_size == 64 + len(rows) * 20 * struct.calcsize("=" + "".join(letters))
    assert growing.tolist() == closed.tolist() == rows * 20


def test_repeated_letters_are_that_many_fields(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows", "3qd")
    file.add(1, 2, 3, 0.5)
    file.close()
    rows = read_rows(tmp_path / "rows", "3qd")
    assert rows.dtype.names == ("f0", "f1", "f2", "f3")
    assert rows.tolist() == [(1, 2, 3, 0.5)]


def test_a_row_wider_than_a_chunk_fits(tmp_path: Path) -> None:
    width = 150_000
    file = RowFile(tmp_path / "rows", f"{width}d")
    file.add(*range(width))
    file.close()
    assert read_rows(tmp_path / "rows", f"{width}d").tolist() == [tuple(map(float, range(width)))]


@pytest.mark.parametrize("wrong", ["", "s", "q q", "<q", "p", "4", "q" * 57])
def test_a_format_of_anything_but_numbers_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="numbers only"):
        RowFile(tmp_path / "rows", wrong)
    assert not os.listdir(tmp_path)


def test_reading_with_another_format_is_refused(tmp_path: Path) -> None:
    RowFile(tmp_path / "rows", "qd").close()
    with pytest.raises(ValueError, match="its rows are b'qd', not 'qq'"):
        read_rows(tmp_path / "rows", "qq")


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    RowFile(tmp_path / "rows", "q").close()
    with pytest.raises(FileExistsError):
        RowFile(tmp_path / "rows", "q")


def test_a_writer_that_died_before_its_header_left_no_rows(tmp_path: Path) -> None:
    for size in (0, 63):
        (tmp_path / "rows").write_bytes(bytes(size))
        assert len(read_rows(tmp_path / "rows", "q")) == 0


def test_a_row_that_cannot_be_packed_is_not_counted(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows", "qd")
    file.add(1, 2.0)
    with pytest.raises(struct.error):
        file.add(1, "two")  # type: ignore[arg-type]
    with pytest.raises(struct.error):
        file.add(1)
    file.add(3, 4.0)
    file.close()
    assert read_rows(tmp_path / "rows", "qd").tolist() == [(1, 2.0), (3, 4.0)]


WRITER = """
import sys
from asgd_lab.record.rowfile import RowFile
file = RowFile(sys.argv[1], "5q")
for thousand in range(1000):
    for number in range(1000 * thousand, 1000 * thousand + 1000):
        file.add(number, number, number, number, number)
    print(number + 1, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "rows")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def whole(rows: np.ndarray) -> bool:
    numbers = np.arange(len(rows))
    return all(np.array_equal(rows[name], numbers) for name in rows.dtype.names or ())


@pytest.mark.parametrize("thousands", [1, 7, 40])  # the last is beyond the first chunk
def test_a_process_killed_while_it_writes_loses_no_complete_row(
    tmp_path: Path, writer: subprocess.Popen[str], thousands: int
) -> None:
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(thousands)][-1]
    writer.send_signal(signal.SIGKILL)
    said = max([said, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    assert writer.wait() == -signal.SIGKILL
    rows = read_rows(tmp_path / "rows", "5q")
    assert len(rows) >= said
    assert whole(rows)


def test_a_reader_meanwhile_sees_whole_rows_only(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    assert writer.stdout is not None
    counts = []
    for line in itertools.islice(writer.stdout, 60):
        rows = read_rows(tmp_path / "rows", "5q")
        assert whole(rows)
        assert len(rows) >= int(line)
        counts.append(len(rows))
    assert counts == sorted(counts)
    assert len(set(counts)) > 1


def test_a_reader_that_a_growing_writer_overtakes_sees_the_rows_it_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowfile, "_CHUNK_BYTES", 4096)
    file = RowFile(tmp_path / "rows", "q")
    file.add(0)
    map_file = mmap.mmap

    def overtaken(*arguments: int, **options: int) -> mmap.mmap:
        mapped = map_file(*arguments, **options)
        for number in range(1, 2000):
            file.add(number)
        return mapped

    with monkeypatch.context() as patch:
        patch.setattr("mmap.mmap", overtaken)
        rows = read_rows(tmp_path / "rows", "q")
    assert len(rows) > 1
    assert whole(rows[:2000])
    file.close()


def test_neither_rows_nor_summaries_import_the_libraries_of_tables() -> None:
    code = (
        "import sys, asgd_lab.record.rowfile, asgd_lab.record.summary\n"
        "print([name for name in ('pandas', 'pyarrow', 'torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
