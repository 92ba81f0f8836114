"""IDX files, the format of MNIST and its like: mapped into memory, or unpacked where they are compressed."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.array_files import Array, mapped
from asgd_lab.tasks.base import check_free_memory, one_line

Pixels = npt.NDArray[np.uint8]
_TYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 12: np.dtype(">i4")}


def idx(path: Path) -> Pixels:
    """The array in an IDX file of unsigned bytes."""
    return numbers(path, 8)


def numbers(path: Path, kind: int) -> Array:
    """The array in an IDX file of that kind: 8, unsigned bytes, or 12, whole numbers of 32 bits."""
    try:
        packed = path.suffix == ".gz"
        with gzip.open(path, "rb") if packed else open(path, "rb") as opened:
            zeros, found, dimensions = struct.unpack(">HBB", opened.read(4))
            shape = struct.unpack(f">{dimensions}I", opened.read(4 * dimensions))
            if (zeros, found) != (0, kind):
                raise ValueError(f"not an IDX file of {'unsigned bytes' if kind == 8 else '32-bit integers'}")
            dtype, offset = _TYPES[kind], 4 + 4 * dimensions
            wanted = offset + math.prod(shape) * dtype.itemsize
            if packed:
                check_free_memory("task.dataset", f"is too large: {path} is compressed, so it takes", wanted - offset)
                content = bytearray(wanted - offset)
                size = offset + _filled(content, opened) + len(opened.read(1))
            else:
                size = path.stat().st_size
        if size != wanted:
            more = "more than " if size > wanted and packed else ""
            size = min(size, wanted) if packed else size
            raise ValueError(f"it has {more}{size:,} bytes where its header, with {shape}, asks for {wanted:,}")
        if packed:
            unpacked: Array = np.frombuffer(content, dtype)
            return unpacked.reshape(shape)
        return mapped(path, dtype, offset, shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise ScenarioError.at("task.dataset", f"{path} cannot be read: {one_line(error)}") from error


def _filled(content: bytearray, opened: io.BufferedIOBase) -> int:
    """Read a stream into the whole array, or up to its end; the number of bytes that were read."""
    view, taken = memoryview(content), 0
    while part := opened.readinto(view[taken:]):
        taken += part
    return taken
