from __future__ import annotations

import itertools
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd_lab.errors import ScenarioError
from asgd_lab.record import rowfile
from asgd_lab.record.rowfile import NewRows, RowFile, read_rows

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
        assert path.stat().st_size == 64 + len(rows) * 20 * (struct.calcsize("=" + "".join(letters)) + 4)
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


@pytest.mark.parametrize("wrong", ["", "s", "q q", "<q", "p", "4", "q" * 45])
def test_a_format_of_anything_but_numbers_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="numbers only"):
        RowFile(tmp_path / "rows", wrong)
    assert not os.listdir(tmp_path)


def test_reading_with_another_format_is_refused(tmp_path: Path) -> None:
    RowFile(tmp_path / "rows", "qd").close()
    with pytest.raises(ScenarioError, match="its rows are 'qd', not 'qq'"):
        read_rows(tmp_path / "rows", "qq")


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    RowFile(tmp_path / "rows", "q").close()
    with pytest.raises(FileExistsError):
        RowFile(tmp_path / "rows", "q")


def test_a_writer_that_died_before_its_header_left_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows").touch()
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


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file of seven rows, closed."""
    file = RowFile(tmp_path / "rows", "2qd")
    for number in range(7):
        file.add(number, number * number, number / 7)
    file.close()
    return tmp_path / "rows"


ROWS = [(number, number * number, number / 7) for number in range(7)]


def test_every_flipped_bit_is_found_and_the_file_named(written: Path) -> None:
    content = written.read_bytes()
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        written.write_bytes(changed)
        place, row = (bit // 8 - 64) % 28, (bit // 8 - 64) // 28
        if bit // 8 >= 64 and place >= 24 and row < 6:
            assert read_rows(written, "2qd").tolist() == ROWS, "only the checksum of a row for which the last vouches"
            with pytest.raises(ScenarioError, match="rows: is damaged"):
                rowfile.cut(written, row + 1)
            continue
        with pytest.raises(ScenarioError, match=r"^.*/rows: (is damaged: |is of format version)"):
            read_rows(written, "2qd")
        if bit // 8 < 64:
            with pytest.raises(ScenarioError, match="rows: "):
                RowFile(written, "2qd", existing=True)
            assert written.read_bytes() == changed, "nothing is written to a file that is damaged"


def test_every_cut_is_found(written: Path) -> None:
    content = written.read_bytes()
    for size in range(1, len(content)):
        written.write_bytes(content[:size])
        with pytest.raises(ScenarioError, match="rows: is damaged: "):
            read_rows(written, "2qd")


def test_what_lies_behind_the_last_counted_row_does_not_matter(written: Path) -> None:
    content = written.read_bytes()
    for behind in (bytes(500), b"torn", content[64:]):
        written.write_bytes(content + behind)
        assert read_rows(written, "2qd").tolist() == ROWS
        file = RowFile(written, "2qd", existing=True)
        file.add(7, 49, 1.0)
        file.close()
        assert read_rows(written, "2qd").tolist() == [*ROWS, (7, 49, 1.0)]


def test_a_row_of_another_place_or_file_is_found(written: Path) -> None:
    content = written.read_bytes()
    row = [content[64 + 28 * number : 92 + 28 * number] for number in range(7)]
    for wrong in ([row[1], row[0], *row[2:]], [*row[:3], row[2], *row[4:]], [row[0], *row[:-1]]):
        written.write_bytes(content[:64] + b"".join(wrong))
        with pytest.raises(ScenarioError, match="is damaged: row "):
            read_rows(written, "2qd")


@pytest.mark.parametrize("rows", range(8))
def test_a_file_cut_to_its_first_rows_goes_on_as_if_it_never_had_more(tmp_path: Path, written: Path, rows: int) -> None:
    expected = RowFile(tmp_path / "expected", "2qd")
    for row in [*ROWS[:rows], (1, 2, 3.0)]:
        expected.add(*row)
    expected.close()
    before = rowfile.extent(written)
    rowfile.cut(written, rows)
    file = RowFile(written, "2qd", existing=True)
    file.add(1, 2, 3.0)
    file.close()
    assert written.read_bytes() == (tmp_path / "expected").read_bytes()
    rowfile.check(written, rowfile.extent(tmp_path / "expected"))
    if rows < 7:
        with pytest.raises(ScenarioError, match=r"is damaged: (it has .* rows, and had 7|its first 7 rows are others)"):
            rowfile.check(written, before)


def test_more_rows_than_a_file_has_cannot_be_kept(written: Path) -> None:
    with pytest.raises(ScenarioError, match="it has 7 rows, and had 8"):
        rowfile.cut(written, 8)
    assert read_rows(written, "2qd").tolist() == ROWS


def earlier(path: Path) -> None:
    """The same seven rows as the first format had them."""
    path.write_bytes(struct.pack("Q56s", 7, b"2qd") + b"".join(struct.pack("=2qd", *row) for row in ROWS))


def test_a_file_of_the_first_format_is_read_and_cut_into_one_of_this(tmp_path: Path) -> None:
    earlier(tmp_path / "rows")
    assert read_rows(tmp_path / "rows", "2qd").tolist() == ROWS
    assert rowfile.extent(tmp_path / "rows") == (7, None)
    rowfile.check(tmp_path / "rows", rowfile.Extent(7, None))
    rowfile.cut(tmp_path / "rows", 5)
    file = RowFile(tmp_path / "rows", "2qd", existing=True)
    file.add(*ROWS[5])
    file.close()
    assert read_rows(tmp_path / "rows", "2qd").tolist() == ROWS[:6]
    assert rowfile.extent(tmp_path / "rows").crc is not None


def test_a_file_of_the_first_format_is_never_written_on(tmp_path: Path) -> None:
    earlier(tmp_path / "rows")
    with pytest.raises(ScenarioError, match="of an earlier format"):
        RowFile(tmp_path / "rows", "2qd", existing=True)


def test_a_file_of_a_later_format_is_refused(written: Path) -> None:
    content = bytearray(written.read_bytes())
    content[12] = 2
    written.write_bytes(content)
    with pytest.raises(ScenarioError, match="is of format version 2, and this program reads 1 and earlier"):
        read_rows(written, "2qd")


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises(ScenarioError, match=r"is no plain file|is missing"):
            read_rows(path, "q")


def test_neither_rows_nor_summaries_import_the_libraries_of_tables() -> None:
    code = (
        "import sys, asgd_lab.record.rowfile, asgd_lab.record.summary\n"
        "print([name for name in ('pandas', 'pyarrow', 'torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("reader", ["all", "new"])
def test_a_row_that_comes_while_the_header_is_read_is_whole(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = RowFile(tmp_path / "rows", "qd")
    rows.add(1, 0.5)
    plain = rowfile.mmap.mmap

    def between(*given: Any, **named: Any) -> Any:
        if len(rows) < 2:
            rows.add(2, 0.25)
        return plain(*given, **named)

    monkeypatch.setattr(rowfile.mmap, "mmap", between)
    new = NewRows(tmp_path / "rows", "qd")
    found = new.read() if reader == "new" else read_rows(tmp_path / "rows", "qd").tolist()
    assert found == [(1, 0.5), (2, 0.25)]
    assert new.read() == ([] if reader == "new" else found)
    rows.add(3, 0.125)
    assert new.read() == [(3, 0.125)]
    rows.close()
