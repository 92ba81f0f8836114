"""Shared memory that cannot be left behind: anonymous files, passed by descriptor, mapped where needed.

The owner of each buffer writes it; all other processes map it read-only, so a faulty process cannot tear the buffers of
others. P is the length of the flat vector.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import warnings
from multiprocessing import reduction

import torch
from torch import Tensor

PAGE_BYTES = mmap.PAGESIZE


def whole_pages(size_bytes: int) -> int:
    """The size rounded up to whole pages, at least one."""
    return max(1, -(-size_bytes // PAGE_BYTES)) * PAGE_BYTES


class Buffer:
    """`size_bytes` of anonymous shared memory; it goes through `Process(args=...)` as a descriptor."""

    def __init__(self, name: str, size_bytes: int) -> None:
        self.size_bytes = whole_pages(size_bytes)
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self._fd, self.size_bytes)

    def __getstate__(self) -> dict[str, object]:
        return {"size_bytes": self.size_bytes, "fd": reduction.DupFd(self._fd)}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.size_bytes = state["size_bytes"]  # type: ignore[assignment]
        self._fd = state["fd"].detach()  # type: ignore[attr-defined]

    def map(self, offset: int = 0, size_bytes: int | None = None, writable: bool = False) -> mmap.mmap:
        """Map a part that starts at a page; the mapping lives as long as any object made from it."""
        size_bytes = self.size_bytes - offset if size_bytes is None else size_bytes
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        return mmap.mmap(self._fd, size_bytes, mmap.MAP_SHARED, access, offset=offset)

    def close(self) -> None:
        """Give the descriptor back; mappings stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def tensor(mapping: mmap.mmap, dtype: torch.dtype, count: int, offset: int = 0) -> Tensor:
    """`count` elements of a mapping as a tensor. One over a read-only mapping ends the process that writes to it."""
    if not count:
        return torch.empty(0, dtype=dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mapping, dtype=dtype, count=count, offset=offset)


class Stack:
    """Equally long float32 vectors in one buffer, each starting at a page."""

    def __init__(self, name: str, count: int, length: int) -> None:
        self.length = length
        self._stride = whole_pages(4 * length)
        self._buffer = Buffer(name, count * self._stride)

    def vector(self, index: int, writable: bool = False) -> Tensor:
        """(P,) vector `index`, mapped."""
        return tensor(self._buffer.map(index * self._stride, self._stride, writable), torch.float32, self.length)

    def close(self) -> None:
        """Give the descriptor back; mapped vectors stay."""
        self._buffer.close()


def protect(vector: Tensor) -> None:
    """Make this mapping read-only: a write to it ends this process; other processes may still write the vector."""
    library = ctypes.CDLL(None, use_errno=True)
    address, size_bytes = ctypes.c_void_p(vector.data_ptr()), ctypes.c_size_t(whole_pages(vector.nbytes))
    if library.mprotect(address, size_bytes, mmap.PROT_READ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
