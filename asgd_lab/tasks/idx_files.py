"""IDX files, the format of MNIST and its like."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import one_line

Pixels = npt.NDArray[np.uint8]


def idx(path: Path) -> Pixels:
    """The array in an IDX file of unsigned bytes; torchvision's reader does not take compressed files."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if (zeros, kind) != (0, 8):
            raise ValueError("not an IDX file of unsigned bytes")
        return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise ScenarioError.at("task.dataset", f"{path} cannot be read: {one_line(error)}") from error
