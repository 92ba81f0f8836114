"""The rows of a table during a run: blocks in a file, each a complete Arrow stream behind its length and checksums.

A killed process leaves its last block short, and the journal ends there. Any other fault in a block is damage and
raises an error: the blocks before it are not taken for the whole table.
"""

from __future__ import annotations

import io
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asgd_lab.record import atomic_files

_HEAD = struct.Struct("<IQI")  # CRC-32 of the block, its length in bytes, and the CRC-32 of these two


class Journal:
    """A journal being written, one block per call of `add`."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    def add(self, batch: Any) -> None:
        """Write a record batch; OSError if there is no room. Blocks added after such an error could not be read."""
        import pyarrow as pa

        stream = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with pa.ipc.new_stream(stream, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        block = stream.getvalue()
        left = memoryview(_head(block) + block)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def close(self) -> None:
        """Close the file; it may be called twice."""
        self._close()


def read(path: Path) -> Iterator[Any]:
    """The record batches; ScenarioError where a block is damaged. A short last block is left out."""
    import pyarrow as pa

    with atomic_files.opened(path) as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            of_block, length, of_head = _HEAD.unpack(head)
            if of_head != zlib.crc32(head[:-4]):
                raise atomic_files.damaged(path, "a block's checksum is that of other content")
            block = file.read(length)
            if len(block) < length:
                return
            if zlib.crc32(block) != of_block:
                raise atomic_files.damaged(path, "a block's checksum is that of other content")
            with pa.ipc.open_stream(block) as stream:
                yield from stream


def _head(block: bytes) -> bytes:
    about = zlib.crc32(block), len(block)
    return _HEAD.pack(*about, zlib.crc32(_HEAD.pack(*about, 0)[:-4]))
