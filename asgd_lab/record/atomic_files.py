"""Files that are complete or absent, with the version of their format and a checksum of their content.

All files of a run but rows and tables are written here: aside, synced to disk, then renamed. A reader gets the content
as written or one ScenarioError that names the file: bytes of unknown origin may make a parser raise anything. Files of
earlier versions have no checksum; they are read.
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
MOST_BYTES = 1 << 28  # of a file read at once, such as JSON and sources; tables and arrays have their own readers
Arrays = dict[str, npt.NDArray[Any]]
_SEAL = re.compile(rb"asgd-lab (\d{4}) ([0-9a-f]{8})")  # the comment of a zip archive, at its very end
_SEAL_BYTES = len(b"asgd-lab 0001 00000000")
_ENDS = b"PK\x05\x06"  # of a zip archive: the last 22 bytes, if it has no comment


# ---------------------------------------------------------------- bytes


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when it is closed without an error, and is synced to disk by then.

    Without `durable` its content survives the end of the process, but not a crash of the machine.
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


def write(path: Path, content: bytes | memoryview, durable: bool = True) -> None:
    """Give the file at `path` this content, or on an error leave it as it is."""
    with replacing(path, durable) as file:
        file.write(content)


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's list of entries, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[BinaryIO]:
    """Open a plain file for reading; OSError for anything else, such as a FIFO that would block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    with open(descriptor, "rb") as file:
        yield file


def read_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
    """The content of a plain file; OSError if it is not one, or is longer than `most` bytes."""
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
    """The ScenarioError for a file that is missing, unreadable or damaged."""
    if isinstance(error, FileNotFoundError):
        return ScenarioError(f"{path}: is missing")
    if isinstance(error, OSError) and error.strerror:
        return ScenarioError(f"{path}: cannot be read: {error.strerror}")
    said = str(error) or type(error).__name__
    return ScenarioError(f"{path}: is damaged: {said.splitlines()[0][:200]}")


def check_version(path: Path | str, version: Any) -> None:
    """ScenarioError unless this is the version that this module writes."""
    if version != VERSION:
        raise ScenarioError(f"{path}: is of format version {version}, and this program reads {VERSION} and earlier")


# ---------------------------------------------------------------- JSON


def write_json(path: Path, value: Mapping[str, Any], durable: bool = True) -> None:
    """Write an object, indented, with `format` and `crc32` after its own keys. NaN and infinity become null."""
    write(path, f"{_text(value, indent=2)}\n".encode(), durable)


def overwrite_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object into the file's existing space, for a full disk; OSError if it is too long."""
    text = _text(value, separators=(",", ":")).encode()
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if len(text) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file.write(text.ljust(size))


def _text(value: Mapping[str, Any], **layout: Any) -> str:
    plain = {**finite(value), "format": VERSION}
    return json.dumps({**plain, "crc32": _checksum(plain)}, ensure_ascii=False, allow_nan=False, **layout)


def read_json(path: Path) -> dict[str, Any]:
    """The object as written; ScenarioError if the file is missing or damaged."""
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


def finite(value: Any) -> Any:
    """The value in JSON's types: null for infinity and NaN, text for unknown types."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


# ---------------------------------------------------------------- arrays


def write_arrays(path: Path, arrays: Mapping[str, Any], durable: bool = True) -> None:
    """Write an .npz archive; its comment is the format's version and the CRC-32 of all bytes before the comment."""
    with replacing(path, durable) as file:
        np.savez(file, **arrays)
        file.seek(-2, io.SEEK_END)
        file.write(struct.pack("<H", _SEAL_BYTES))
        file.seek(0)
        crc = _crc_of(file)
        file.write(b"asgd-lab %04d %08x" % (VERSION, crc))


def read_arrays(path: Path) -> Arrays:
    """The arrays as written; ScenarioError if the file is missing or damaged. Pickled objects are refused."""
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
    """The array in an .npy file of an earlier version; ScenarioError if the file is missing or damaged."""
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
    """The CRC-32 of the next `size` bytes, or of all that follow."""
    crc = 0
    while size and (chunk := file.read(1 << 20 if size < 0 else min(size, 1 << 20))):
        crc = zlib.crc32(chunk, crc)
        size -= len(chunk) if size > 0 else 0
    return crc
