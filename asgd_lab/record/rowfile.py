"""Rows of fixed width in a memory-mapped file: a row is stored first and counted after, so no kill tears one.

The stores of a process into a shared mapping survive the process, even a SIGKILL. One process writes a file; any number
of processes read it meanwhile and see complete rows only (the count is one aligned 8-byte store after the row's stores,
in program order; x86 keeps that order for readers on other cores too). Space is reserved before it is used, because a
store into a mapping that the disk cannot back would kill the writer instead of raising an error.

Each row ends in the CRC-32 of all rows up to and including it. So a changed, missing or repeated row is found, one
number identifies all rows up to a given one, and bytes behind the last counted row do not matter. The count and its
complement share one word. Files of format 0, from earlier versions, have neither; they can be read, and `cut` writes
them in the current format.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files

_MAGIC = b"rows"
_HEADER = struct.Struct("Q4sI44sI")  # count, magic, format version, the rows' format, CRC-32 of the three
_FIXED = struct.Struct("4sI44s")
_EARLIER = struct.Struct("Q56s")  # format 0: count, the rows' format
_HEADER_BYTES = _HEADER.size
_CRC_BYTES = 4
_ONE = 0xFFFF_FFFF
"""The counting word has the count in its lower half and the complement in its upper: a row more is this much less."""
_CHUNK_BYTES = 1 << 20
_TYPES = {"b": "i1", "B": "u1", "h": "i2", "H": "u2", "i": "i4", "I": "u4", "q": "i8", "Q": "u8", "f": "f4", "d": "f8"}


class Extent(NamedTuple):
    """The number of rows and the CRC-32 of all of them; no CRC (None) where an earlier version wrote them."""

    rows: int
    crc: int | None


class RowFile:
    """A file of rows of `format`, in struct's letters without padding ("qqd": two 64-bit integers and a double).

    The file is new, or with `existing` one that no other process writes any more.
    """

    def __init__(self, path: Path | str, format: str, existing: bool = False) -> None:
        row_type(format)  # refuses a format that could not be read back
        row = struct.Struct("=" + format)
        self._width, self._pack = row.size + _CRC_BYTES, row.pack
        # An existing file may hold the rows of a killed writer: never write over it.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (0 if existing else os.O_EXCL), 0o644)
        try:
            self._crc = self._begin(path, format)
        except BaseException:
            os.close(self._descriptor)
            raise
        written = os.fstat(self._descriptor).st_size
        self._size = max(1, -(-written // _CHUNK_BYTES)) * _CHUNK_BYTES
        os.posix_fallocate(self._descriptor, 0, self._size)
        self._map = mmap.mmap(self._descriptor, self._size)
        # One 8-byte store through a memoryview: struct's pack_into clears the count before it writes it, and a kill
        # between the two would lose every row. Its own mapping, because a mapping that is viewed cannot be resized.
        self._header = mmap.mmap(self._descriptor, _HEADER_BYTES)
        self._counter = memoryview(self._header).cast("Q")
        self._word = self._counter[0]
        self._end = _HEADER_BYTES + len(self) * self._width

    def _begin(self, path: Path | str, format: str) -> int:
        """Write the header of a new file, or check that of an existing one; return the checksum of its rows."""
        if not os.fstat(self._descriptor).st_size:
            os.write(self._descriptor, _header(0, format))
        found = extent(Path(path), format)
        if found.crc is None:
            raise ScenarioError(f"{path}: is of an earlier format, which can be read and not written")
        return found.crc

    def __len__(self) -> int:
        return self._counter[0] & _ONE

    def add(self, *values: float) -> None:
        row = self._pack(*values)
        begin = self._end
        end = begin + self._width
        while end > self._size:
            self._grow()
        crc = zlib.crc32(row, self._crc)
        self._map[begin:end] = row + crc.to_bytes(_CRC_BYTES, "little")
        self._word = word = self._word - _ONE
        self._counter[0] = word
        self._end, self._crc = end, crc

    def close(self) -> None:
        """Trim the file to its rows; it may be called twice."""
        if self._descriptor < 0:
            return
        os.ftruncate(self._descriptor, _HEADER_BYTES + len(self) * self._width)
        self._counter.release()
        self._header.close()
        self._map.close()
        os.close(self._descriptor)
        self._descriptor = -1

    def _grow(self) -> None:
        os.posix_fallocate(self._descriptor, self._size, _CHUNK_BYTES)
        self._map.resize(self._size + _CHUNK_BYTES)
        self._size += _CHUNK_BYTES


def extent(path: Path | str, format: str | None = None) -> Extent:
    """The number of rows in a file and their stored checksum, without reading the rows.

    Its writer may be at work. ScenarioError if the header is damaged, or the file is too short for its count.
    """
    with _named(path), atomic_files.opened(path) as file:
        header = _seen_header(path, file, format)
        width = row_type(header.format).itemsize + (_CRC_BYTES if header.version else 0)
        _check_size(path, file, header.rows, width)
        if header.version == 0:
            return Extent(header.rows, None)
        file.seek(_HEADER_BYTES + header.rows * width - _CRC_BYTES)
        return Extent(header.rows, int.from_bytes(file.read(_CRC_BYTES), "little") if header.rows else 0)


def check(path: Path, up_to: Extent) -> None:
    """ScenarioError unless the file begins with these very rows."""
    found = _read(path, rows=up_to.rows).crc
    if up_to.crc is not None and found != up_to.crc:
        raise atomic_files.damaged(path, f"its first {up_to.rows:,} rows are others")


def cut(path: Path, rows: int) -> None:
    """Keep the first `rows` of a file that no process writes; ScenarioError if it has fewer, or if one is damaged."""
    found = _read(path, rows=rows)
    format, version = found.header.format, found.header.version
    if version == 0:
        atomic_files.write(path, _header(rows, format) + _with_checksums(found.rows))
        return
    with path.open("r+b") as file:  # the count first: bytes behind the counted rows do not matter
        file.write(_header(rows, format))
        file.flush()
        file.truncate(_HEADER_BYTES + rows * (row_type(format).itemsize + _CRC_BYTES))
        os.fsync(file.fileno())


def read_rows(path: Path | str, format: str) -> npt.NDArray[Any]:
    """A copy of the counted rows, fields f0, f1, ... (`.tolist()` gives tuples); the writer may be at work, or dead.

    ScenarioError if a row is damaged.
    """
    return _read(path, format).rows


class NewRows:
    """The rows of a growing file, each once, by whoever reads while its writer is at work."""

    def __init__(self, path: Path, format: str) -> None:
        self._path, self._format = path, format
        self._rows, self._crc = 0, 0

    def read(self) -> list[tuple[Any, ...]]:
        """The rows since the last call. ScenarioError if one is damaged."""
        with _named(self._path), atomic_files.opened(self._path) as file:
            header = _seen_header(self._path, file, self._format)
            new = header.rows - self._rows
            if new <= 0:
                return []
            dtype = np.dtype([("row", row_type(header.format)), ("crc", "<u4")])
            file.seek(_HEADER_BYTES + self._rows * dtype.itemsize)
            stored = np.frombuffer(bytearray(file.read(new * dtype.itemsize)), dtype)
        kept = np.ascontiguousarray(stored["row"])
        crc = zlib.crc32(kept.tobytes(), self._crc)
        if crc != stored["crc"][-1]:
            raise atomic_files.damaged(self._path, "a new row is not what was written")
        self._rows, self._crc = header.rows, crc
        found: list[tuple[Any, ...]] = kept.tolist()
        return found


def row_type(format: str) -> np.dtype[Any]:
    """numpy's type of one row; ValueError for a format with anything but plain numbers."""
    if not re.fullmatch(rf"(\d*[{''.join(_TYPES)}])+", format) or len(format) > 44:
        raise ValueError(f"row format {format!r}: numbers only, at most 44 letters of {', '.join(_TYPES)}")
    letters = "".join(letter * int(times or 1) for times, letter in re.findall(r"(\d*)(\w)", format))
    return np.dtype([(f"f{index}", _TYPES[letter]) for index, letter in enumerate(letters)])


class _Header(NamedTuple):
    rows: int
    format: str
    version: int


class _Found(NamedTuple):
    header: _Header
    rows: npt.NDArray[Any]
    crc: int | None  # as in Extent


@contextlib.contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Raise errors about the file as a ScenarioError that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise atomic_files.damaged(path, error) from error


def _header(count: int, format: str) -> bytes:
    fixed = _MAGIC, atomic_files.VERSION, format.encode()
    return _HEADER.pack(_word(count), *fixed, zlib.crc32(_FIXED.pack(*fixed)))


def _word(count: int) -> int:
    return (_ONE << 32) - count * _ONE


def _read_header(path: Path | str, content: bytes, format: str | None = None) -> _Header:
    if len(content) < _HEADER_BYTES:
        raise ValueError("it has no whole header")
    word, magic, version, stored, crc = _HEADER.unpack(content)
    if magic == _MAGIC:
        if version != atomic_files.VERSION:
            atomic_files.check_version(path, version)
        if crc != zlib.crc32(content[8:-4]) or word != _word(word & _ONE):
            raise ValueError("its header is not what was written")
        header = _Header(word & _ONE, stored.rstrip(b"\0").decode("ascii"), version)
    else:
        count, stored = _EARLIER.unpack(content)
        try:
            header = _Header(count, stored.rstrip(b"\0").decode("ascii"), 0)
            row_type(header.format)
        except ValueError as error:
            raise ValueError("its header names no rows") from error
    if format is not None and header.format != format:
        raise ValueError(f"its rows are {header.format!r}, not {format!r}")
    return header


def _seen_header(path: Path | str, file: BinaryIO, format: str | None = None) -> _Header:
    """The header of a file whose writer may be at work, so that the count is taken by one 8-byte load."""
    if not os.fstat(file.fileno()).st_size:  # its writer died before the header was complete
        return _Header(0, format or "q", atomic_files.VERSION)
    # Not by the file's buffer: it would keep what followed before the rows were counted.
    content = os.pread(file.fileno(), _HEADER_BYTES, 0)
    if len(content) == _HEADER_BYTES:
        with (
            mmap.mmap(file.fileno(), _HEADER_BYTES, access=mmap.ACCESS_READ) as header,
            memoryview(header) as view,
            view.cast("Q") as words,
        ):
            content = struct.pack("Q", words[0]) + content[8:]
    return _read_header(path, content, format)


def _read(path: Path | str, format: str | None = None, rows: int | None = None) -> _Found:
    """All counted rows, or the first `rows` of them. ScenarioError if there are fewer, or if one is damaged."""
    with _named(path), atomic_files.opened(path) as file:
        # The count first, then as much of the file as it needs: a writer grows the file in between.
        header = _seen_header(path, file, format)
        count = header.rows if rows is None else rows
        if count > header.rows:
            raise ValueError(f"it has {header.rows:,} rows, and had {count:,}")
        plain = row_type(header.format)
        dtype = np.dtype([("row", plain), ("crc", "<u4")]) if header.version else plain
        _check_size(path, file, header.rows, dtype.itemsize)
        file.seek(_HEADER_BYTES)
        stored = np.frombuffer(bytearray(file.read(count * dtype.itemsize)), dtype)
    if not header.version:
        return _Found(header, stored, None)
    kept = np.ascontiguousarray(stored["row"])
    crc = zlib.crc32(kept.tobytes())
    if count and crc != stored["crc"][-1]:
        where = next(n for n, made in enumerate(_checksums(kept)) if made != stored["crc"][n])
        raise atomic_files.damaged(path, f"row {where:,} of {header.rows:,} is not what was written")
    return _Found(header, kept, crc)


def _checksums(rows: npt.NDArray[Any]) -> Iterator[int]:
    """For each row the CRC-32 of all rows up to and including it."""
    width, content = rows.dtype.itemsize, memoryview(rows.tobytes())
    pieces = (content[at : at + width] for at in range(0, len(content), width))
    checksums = itertools.accumulate(pieces, lambda crc, row: zlib.crc32(row, crc), initial=0)
    next(checksums)
    return checksums


def _with_checksums(rows: npt.NDArray[Any]) -> bytes:
    checked = np.empty(len(rows), np.dtype([("row", rows.dtype), ("crc", "<u4")]))
    checked["row"], checked["crc"] = rows, np.fromiter(_checksums(rows), np.uint32, len(rows))
    return checked.tobytes()


def _check_size(path: Path | str, file: BinaryIO, rows: int, width: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if rows and size < _HEADER_BYTES + rows * width:
        raise ValueError(f"it has {size:,} bytes, too few for its {rows:,} rows")
