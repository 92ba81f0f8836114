"""A data set that all processes of a run read: what lies in a file stays there, the rest is copied once.

A tensor over a memory-mapped file is found by its address among the mappings of this process, and compared with the
file. Every process then maps the file itself, read-only, and its pages are the page cache's: nobody holds a copy.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from asgd_lab.backends.real.transports.memory import Buffer, tensor, whole_pages
from asgd_lab.errors import RunFailed

_LEAST_BYTES = 2**20  # of a tensor in a file that is not copied
_COMPARED_BYTES = 2**24  # at a time


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: str) -> _File:
        found = os.stat(path)
        return cls(path, found.st_size, found.st_mtime_ns)

    def map(self) -> mmap.mmap:
        """The file, read-only; `RunFailed` if it is not the one that the run began with."""
        try:
            found = self.of(self.path)
            if found == self:
                with open(self.path, "rb") as opened:
                    return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RunFailed(f"the data in {self.path} cannot be read again: {error.strerror}") from error
        raise RunFailed(f"{self.path} has changed since the run began; leave a run's data as they are")


@dataclass(frozen=True, slots=True)
class _Entry:
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    file: _File | None = None  # None: in shared memory


class SharedTensors:
    """Named tensors; those that do not lie in files are copied once into shared memory."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._entries: dict[str, _Entry] = {}
        end = 0
        for name, value in tensors.items():
            place = _place(value)
            if place is not None:
                self._entries[name] = _Entry(value.dtype, tuple(value.shape), place[1], place[0])
                continue
            self._entries[name] = _Entry(value.dtype, tuple(value.shape), end)
            end += whole_pages(value.nbytes)
        self._buffer = Buffer("asgd-lab-data", end)
        mapping = self._buffer.map(writable=True)
        for name, value in tensors.items():
            if self._entries[name].file is None:
                self._view(mapping, self._entries[name]).copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, mapped read-only."""
        maps = {file: file.map() for file in {each.file for each in self._entries.values()} if file is not None}
        copied = self._buffer.map()
        return {
            name: self._view(copied if entry.file is None else maps[entry.file], entry)
            for name, entry in self._entries.items()
        }

    def close(self) -> None:
        """Give the descriptor back; mapped tensors stay."""
        self._buffer.close()

    @staticmethod
    def _view(mapping: mmap.mmap, entry: _Entry) -> Tensor:
        count = torch.Size(entry.shape).numel()
        return tensor(mapping, entry.dtype, count, entry.offset).view(entry.shape)


def _place(value: Tensor) -> tuple[_File, int] | None:
    """The file that holds this tensor's bytes, and their offset; None if there is none."""
    if value.nbytes < _LEAST_BYTES or not value.is_contiguous() or value.device.type != "cpu":
        return None
    found = _mapped(value.data_ptr(), value.nbytes)
    if found is None:
        return None
    path, offset = found
    with contextlib.suppress(OSError, ValueError, RunFailed):
        file = _File.of(path)
        if file.size_bytes >= offset + value.nbytes:
            stored = tensor(file.map(), torch.uint8, value.nbytes, offset)
            here = value.reshape(-1).view(torch.uint8)
            pairs = zip(torch.split(here, _COMPARED_BYTES), torch.split(stored, _COMPARED_BYTES), strict=True)
            if all(torch.equal(*pair) for pair in pairs):  # a private mapping may have been written to
                return file, offset
    return None


def _mapped(address: int, size_bytes: int) -> tuple[str, int] | None:
    """The path and the offset of the mapping of this process that holds these bytes; None if it has no file."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            first, end = (int(each, 16) for each in fields[0].split("-"))
            if first <= address < end:
                is_whole = len(fields) == 6 and fields[5].startswith("/") and address + size_bytes <= end
                return (fields[5], int(fields[2], 16) + address - first) if is_whole else None
    return None
