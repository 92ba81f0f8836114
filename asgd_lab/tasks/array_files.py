"""Arrays in files `.npy`, `.npz` and `.bin`: mapped into memory where the file allows it, so that nothing is copied.

A member of an `.npz` file is mapped if it is stored uncompressed (numpy.savez) and aligned; else it is read once.
Objects are never unpickled.
"""

from __future__ import annotations

import contextlib
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError, meant
from asgd_lab.tasks.base import check_free_memory, one_line

Array = npt.NDArray[Any]
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a zip archive: magic, lengths of its name and extra field


def array(key: str, path: Path, member: str | None = None, raw: str = "uint16") -> Array:
    """The array in that file, read-only; a `ScenarioError` at `key` says why it cannot be read.

    `member` names an array of an `.npz` file; None: its only one. `raw` is the type of a `.bin` file's numbers.
    """
    if path.suffix not in (".npy", ".npz", ".bin"):
        raise ScenarioError.at(key, f"{path} must be a file .npy, .npz or .bin")
    if path.suffix == ".bin":
        return numbers(key, path, raw)
    with told(key, path):
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        return _member(key, path, member) if path.suffix == ".npz" else _numpy(key, path, 0)


def numbers(key: str, path: Path, kind: str) -> Array:
    """The little-endian numbers that a file consists of, read-only."""
    with told(key, path):
        dtype, size_bytes = np.dtype(kind).newbyteorder("<"), path.stat().st_size
        if not size_bytes or size_bytes % dtype.itemsize:
            raise ValueError(f"its {size_bytes:,} bytes are no whole number of {dtype.name}, at least one")
        return mapped(path, dtype, 0, (size_bytes // dtype.itemsize,))


@contextlib.contextmanager
def told(key: str, path: Path) -> Iterator[None]:
    """Make a `ScenarioError` at `key` of an error about a file that is missing, cut off or of another format."""
    try:
        yield
    except (OSError, EOFError, ValueError, struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise ScenarioError.at(key, f"{path} cannot be read: {said}") from error


def members(key: str, path: Path) -> list[str]:
    """The names of the arrays in an `.npz` file."""
    with told(key, path), zipfile.ZipFile(path) as archive:
        return [each.removesuffix(".npy") for each in archive.namelist()]


def tensor(key: str, name: str, values: Array) -> Tensor:
    """A tensor over the array's own memory, which may be a file's and read-only; `name` is for a message."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if not values.dtype.isnative:
            check_free_memory(key, f"is too large: {name} with its bytes in this machine's order takes", values.nbytes)
        try:
            return torch.from_numpy(values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("=")))
        except (TypeError, ValueError) as error:
            raise ScenarioError.at(
                key, f"{name} has an array of {values.dtype}, which torch has no type for"
            ) from error


def _numpy(key: str, path: Path, offset: int) -> Array:
    """The array whose header stands at that offset."""
    with open(path, "rb") as opened:
        opened.seek(offset)
        version = np.lib.format.read_magic(opened)
        if version > (2, 0):
            raise ValueError(f"it has version {version[0]}.{version[1]} of the format; 1.0 and 2.0 are read")
        read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(opened)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not unpickled")
        begins = opened.tell()
    shape = shape[::-1] if is_fortran else shape
    if begins % dtype.itemsize:
        check_free_memory(key, f"is too large: {path.name}, which is not aligned, takes", path.stat().st_size - begins)
        found: Array = np.fromfile(path, dtype, math.prod(shape), offset=begins).reshape(shape)
    else:
        found = mapped(path, dtype, begins, shape)
    return found.T if is_fortran else found


def mapped(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> Array:
    """The array at that offset of a file, which stays there."""
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    found: Array = np.memmap(path, dtype, mode="r", offset=offset, shape=shape)
    return found


def _member(key: str, path: Path, member: str | None) -> Array:
    names = members(key, path)
    if member is None and len(names) != 1:
        raise ValueError(f"it has the arrays {', '.join(names) or 'none'}; it must have one")
    name = names[0] if member is None else member
    if name not in names:
        raise ScenarioError.at(key, f"{path} has no array '{name}'{meant(name, names)}; it has {', '.join(names)}")
    with zipfile.ZipFile(path) as archive:
        found = archive.getinfo(f"{name}.npy")
        if found.compress_type == zipfile.ZIP_STORED:
            with open(path, "rb") as opened:
                opened.seek(found.header_offset)
                magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(opened.read(_LOCAL_HEADER.size))
            if magic != b"PK\3\4":
                raise ValueError(f"the archive is damaged where {name} begins")
            return _numpy(key, path, found.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
        check_free_memory(key, f"is too large: {name} of {path.name} is compressed, so it takes", found.file_size)
        with archive.open(found) as opened_member:
            values = np.lib.format.read_array(opened_member, allow_pickle=False)
    values.setflags(write=False)
    return values
