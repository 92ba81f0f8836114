"""Rows of fixed width in a memory-mapped file: a row is packed first and counted after, so no kill tears one.

What a process stored in a shared mapping outlives it, SIGKILL included. One process writes a file; any number may read
it meanwhile and see whole rows only (the count is one aligned 8-byte store after the row's, in program order: x86 keeps
that order for readers on other cores too). Space is reserved before it is used, because a store into a mapping that the
disk cannot back would kill the writer instead of telling it.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADER = struct.Struct("Q56s")  # count, the rows' format
_HEADER_BYTES = _HEADER.size
_CHUNK_BYTES = 1 << 20
_TYPES = {"b": "i1", "B": "u1", "h": "i2", "H": "u2", "i": "i4", "I": "u4", "q": "i8", "Q": "u8", "f": "f4", "d": "f8"}


class RowFile:
    """A file of rows of `format`, in struct's letters without padding ("qqd": two 64-bit integers and a double).

    A new one; or, to `go_on`, the one that is there, whose writer is dead or has closed it.
    """

    def __init__(self, path: Path | str, format: str, go_on: bool = False) -> None:
        row_type(format)  # refuses a format that could not be read back
        row = struct.Struct("=" + format)
        self._width, self._pack = row.size, row.pack_into
        # An existing file may hold what a killed writer left: never write over it.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (0 if go_on else os.O_EXCL), 0o644)
        written = os.fstat(self._descriptor).st_size
        if written < _HEADER_BYTES:
            os.write(self._descriptor, _HEADER.pack(0, format.encode()))
        self._size = max(1, -(-written // _CHUNK_BYTES)) * _CHUNK_BYTES
        os.posix_fallocate(self._descriptor, 0, self._size)
        self._map = mmap.mmap(self._descriptor, self._size)
        # One 8-byte store through a memoryview: struct's pack_into clears the count before it writes it, and a kill
        # between the two would lose every row. Its own mapping, because a mapping that is viewed cannot be resized.
        self._header = mmap.mmap(self._descriptor, _HEADER_BYTES)
        self._counter = memoryview(self._header).cast("Q")

    def __len__(self) -> int:
        return self._counter[0]

    def add(self, *values: float) -> None:
        """Append one row."""
        count = self._counter[0]
        offset = _HEADER_BYTES + count * self._width
        while offset + self._width > self._size:
            self._grow()
        self._pack(self._map, offset, *values)
        self._counter[0] = count + 1

    def close(self) -> None:
        """Trim the file to its rows; it may be called twice."""
        if self._descriptor < 0:
            return
        os.ftruncate(self._descriptor, _HEADER_BYTES + self._counter[0] * self._width)
        self._counter.release()
        self._header.close()
        self._map.close()
        os.close(self._descriptor)
        self._descriptor = -1

    def _grow(self) -> None:
        os.posix_fallocate(self._descriptor, self._size, _CHUNK_BYTES)
        self._map.resize(self._size + _CHUNK_BYTES)
        self._size += _CHUNK_BYTES


def count_rows(path: Path) -> int:
    """How many rows a file has, whatever they are; its writer may be at work. ValueError if it is shorter than them."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    if len(header) < _HEADER_BYTES:
        return 0
    count, format = _HEADER.unpack(header)
    _check_size(path, size, int(count), _type_of(path, format).itemsize)
    return int(count)


def _type_of(path: Path | str, format: bytes) -> np.dtype[Any]:
    try:
        return row_type(format.rstrip(b"\0").decode("ascii"))
    except ValueError as error:
        raise ValueError(f"{path}: is damaged: its header names no rows") from error


def _check_size(path: Path | str, size: int, count: int, width: int) -> None:
    if size < _HEADER_BYTES + count * width:
        raise ValueError(f"{path}: is damaged: it has {size:,} bytes, too few for its {count:,} rows")


def cut(path: Path, rows: int) -> None:
    """Keep the first `rows` of a file that nobody writes; ValueError if it has fewer."""
    with path.open("r+b") as file:
        header = file.read(_HEADER_BYTES)
        count, format = _HEADER.unpack(header) if len(header) == _HEADER_BYTES else (0, b"")
        if count < rows:
            raise ValueError(f"{path}: has {count} rows, of {rows}")
        width = row_type(format.rstrip(b"\0").decode()).itemsize if format else 0
        file.truncate(_HEADER_BYTES + rows * width)
        file.seek(0)
        file.write(_HEADER.pack(rows, format.rstrip(b"\0")))


def read_rows(path: Path | str, format: str) -> npt.NDArray[Any]:
    """A copy of the counted rows, fields f0, f1, ... (`.tolist()` gives tuples); the writer may be at work, or dead."""
    dtype = row_type(format)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < _HEADER_BYTES:  # its writer died before the header was complete
            return np.empty(0, dtype)
        # The count first, then as much of the file as it needs: a writer grows the file in between.
        with mmap.mmap(file.fileno(), _HEADER_BYTES, access=mmap.ACCESS_READ) as header:
            count, stored = _HEADER.unpack(header)
        if stored.rstrip(b"\0") != format.encode():
            raise ValueError(f"{path}: its rows are {stored.rstrip(bytes(1))!r}, not {format!r}")
        _check_size(path, os.fstat(file.fileno()).st_size, count, dtype.itemsize)
        with mmap.mmap(file.fileno(), _HEADER_BYTES + count * dtype.itemsize, access=mmap.ACCESS_READ) as rows:
            return np.ndarray(count, dtype, rows, _HEADER_BYTES).copy()


def row_type(format: str) -> np.dtype[Any]:
    """numpy's type of one row; ValueError for a format with anything but plain numbers."""
    if not re.fullmatch(rf"(\d*[{''.join(_TYPES)}])+", format) or len(format) > 56:
        raise ValueError(f"row format {format!r}: numbers only, at most 56 letters of {', '.join(_TYPES)}")
    letters = "".join(letter * int(times or 1) for times, letter in re.findall(r"(\d*)(\w)", format))
    return np.dtype([(f"f{index}", _TYPES[letter]) for index, letter in enumerate(letters)])
