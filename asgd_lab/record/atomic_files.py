"""Files that are complete or not there, and say their format's version and a checksum of what they hold.

Whatever a run keeps beside its rows and tables is written here: aside, on the disk, then under its name. A reader gets
what was written or one ScenarioError that names the file: bytes of unknown origin may make a parser raise anything.
Files of earlier versions have no checksum; they are read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from asgd_lab.errors import ScenarioError
from asgd_lab.record import removal

VERSION = 1
MOST_BYTES = 1 << 28  # of a file that is read whole, as JSON and sources are; tables and arrays have their own readers
Arrays = dict[str, npt.NDArray[Any]]
_SEAL = re.compile(rb"asgd-lab (\d{4}) ([0-9a-f]{8})")  # the comment of a zip archive, at its very end
_SEAL_BYTES = len(b"asgd-lab 0001 00000000")
_ENDS = b"PK\x05\x06"  # of a zip archive: the last 22 bytes, if it has no comment


# ---------------------------------------------------------------- bytes


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write, which takes its place as `path` when it is closed without an error, on the disk by then.

    What is not `durable` survives the process and not the machine.
    """
    aside = path.with_name(path.name + ".new")
    try:
        with aside.open("w+b") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            removal.remove_unfinished(aside)
        raise
    if durable:
        sync(path.parent)


def write(path: Path, content: bytes | memoryview) -> None:
    """Make the file at `path` this, or leave it as it is."""
    with replacing(path) as file:
        file.write(content)


def sync(path: Path) -> None:
    """Return when a file, or which files are in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """A plain file to read; OSError if there is anything else, which might never end or never begin."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    with open(descriptor, "rb") as file:
        yield file


def read_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """A plain file's content; OSError if it is anything else, or longer than a file of its kind can be."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with opened(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def damaged(path: Path | str, error: BaseException | str) -> ScenarioError:
    """What is said of a file that cannot be read as what it was written as."""
    if isinstance(error, FileNotFoundError):
        return ScenarioError(f"{path}: is missing")
    if isinstance(error, OSError) and error.strerror:
        return ScenarioError(f"{path}: cannot be read: {error.strerror}")
    said = str(error) or type(error).__name__
    return ScenarioError(f"{path}: is damaged: {said.splitlines()[0][:200]}")


def check_version(path: Path | str, version: Any) -> None:
    """ScenarioError unless this is the version that this module writes, the first that a file says."""
    if version != VERSION:
        raise ScenarioError(f"{path}: is of format version {version}, and this program reads {VERSION} and earlier")


# ---------------------------------------------------------------- JSON


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object, indented, with `format` and `crc32` after its own keys. What is not finite becomes null."""
    write(path, f"{_text(value, indent=2)}\n".encode())


def overwrite_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object into the space that the file has, for a disk that has no more; OSError if it is too long."""
    text = _text(value, separators=(",", ":")).encode()
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if len(text) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file.write(text.ljust(size))


def _text(value: Mapping[str, Any], **layout: Any) -> str:
    plain = {**_finite(value), "format": VERSION}
    return json.dumps({**plain, "crc32": _checksum(plain)}, ensure_ascii=False, allow_nan=False, **layout)


def read_json(path: Path) -> dict[str, Any]:
    """What was written; ScenarioError if there is no such file, or if it is damaged."""
    try:
        stored = json.loads(read_bytes(path))
        if not isinstance(stored, dict):
            raise ValueError("it holds no object")
        crc, version = stored.pop("crc32", None), stored.get("format")
        if (crc, version) != (None, None) and crc != _checksum(stored):
            raise ValueError("its checksum is that of other content; it was edited, or a bit has flipped")
    except Exception as error:
        raise damaged(path, error) from error
    if version is not None:
        check_version(path, stored.pop("format"))
    return stored


def _checksum(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{zlib.crc32(text.encode()):08x}"


def _finite(value: Any) -> Any:
    """As JSON has it: no infinity and no NaN, and text for what it does not know."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


# ---------------------------------------------------------------- arrays


def write_arrays(path: Path, arrays: Mapping[str, Any], durable: bool = True) -> None:
    """Write an .npz archive, whose comment is its format's version and the CRC-32 of all bytes before the comment."""
    with replacing(path, durable) as file:
        np.savez(file, **arrays)
        file.seek(-2, io.SEEK_END)
        file.write(struct.pack("<H", _SEAL_BYTES))
        file.seek(0)
        crc = _crc_of(file)
        file.write(b"asgd-lab %04d %08x" % (VERSION, crc))


def read_arrays(path: Path) -> Arrays:
    """What was written; ScenarioError if there is no such file, or if it is damaged. Nothing in it is code."""
    try:
        with opened(path) as file:
            _check_seal(path, file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                if not isinstance(stored, np.lib.npyio.NpzFile):
                    raise ValueError("it is no archive of arrays")
                if any(each.compress_type != zipfile.ZIP_STORED for each in zipfile.ZipFile(file).infolist()):
                    raise ValueError("its arrays are packed, and nobody knows how large they would become")
                return {key: stored[key] for key in stored.files}
    except ScenarioError:
        raise
    except Exception as error:
        raise damaged(path, error) from error


def read_array(path: Path) -> npt.NDArray[Any]:
    """An .npy file of an earlier version; ScenarioError if there is no such file, or if it cannot be read."""
    try:
        with opened(path) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise damaged(path, error) from error


def checksum_of(path: Path) -> str | None:
    """The checksum in an archive's comment; None for one of an earlier version. ScenarioError if it is damaged."""
    try:
        with opened(path) as file:
            return _stored_seal(path, file)
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def _check_seal(path: Path, file: BinaryIO) -> None:
    stored = _stored_seal(path, file)
    if stored is None:
        return
    size = file.seek(-_SEAL_BYTES, io.SEEK_END)
    file.seek(0)
    if f"{_crc_of(file, size):08x}" != stored:
        raise ValueError("its checksum is that of other content")


def _stored_seal(path: Path, file: BinaryIO) -> str | None:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _SEAL_BYTES))
    end = file.read()
    if end.startswith(_ENDS) and end.endswith(b"\0\0") and len(end) == _SEAL_BYTES:
        return None
    found = _SEAL.fullmatch(end)
    if found is None:
        raise ValueError("it does not end as an archive of arrays does")
    check_version(path, int(found[1]))
    return found[2].decode()


def _crc_of(file: IO[bytes], size: int = -1) -> int:
    """Of the next `size` bytes, or of all that follow."""
    crc = 0
    while size and (chunk := file.read(1 << 20 if size < 0 else min(size, 1 << 20))):
        crc = zlib.crc32(chunk, crc)
        size -= len(chunk) if size > 0 else 0
    return crc
