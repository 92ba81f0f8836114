"""Standard output and standard error that never end the program, and never hold up its work.

All printed text goes through two streams made here. Text that cannot be delivered (the stream is closed, the reader is
gone, the disk is full) is dropped; a character that the encoding lacks is written as an escape. During work the program
does not wait for a slow reader: up to `KEPT_BYTES` wait in memory. This file imports nothing heavy.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

KEPT_BYTES = 1 << 20
PATIENCE_S = 5.0  # at the end of work, for a reader that takes nothing


class Pipe(io.RawIOBase):
    """A stream whose writes always succeed. With `hurries` they never wait for the reader."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._waiting = bytearray()
        self.hurries = False
        self.lost: OSError | None = None  # the reason for dropped text, except that the reader closed the pipe

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def write(self, data: ReadableBuffer, /) -> int:
        """Accept all of `data`; return its size."""
        size = memoryview(data).nbytes
        if len(self._waiting) + size <= KEPT_BYTES:
            self._waiting += data
        self._pass_on(0.0 if self.hurries else None)
        return size

    def drain(self, patience_s: float) -> None:
        """Write until nothing is left, or until nothing could be written for `patience_s`."""
        while self._waiting and self._pass_on(patience_s):
            pass

    def _pass_on(self, patience_s: float | None) -> bool:
        """Write the waiting text as far as the reader accepts it; return whether it accepted any."""
        taken = False
        with contextlib.suppress(BrokenPipeError):
            try:
                while self._waiting and self._is_ready(patience_s):
                    # A ready pipe has room for PIPE_BUF bytes; a terminal accepts a line or so at a time.
                    part = bytes(self._waiting[: select.PIPE_BUF])
                    del self._waiting[: len(part)]  # before the write: an interrupt just after it must not repeat it
                    size = os.write(self._fd, part)
                    self._waiting[:0] = part[size:]
                    taken = True
                return taken
            except BlockingIOError:  # another process that shares the descriptor made it non-blocking
                self._waiting[:0] = part
                return taken
            except BrokenPipeError:
                pass
            except OSError as error:
                self.lost = error
        self._waiting.clear()
        return False

    def _is_ready(self, patience_s: float | None) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(None if patience_s is None else 1e3 * patience_s))


def install() -> None:
    """Replace both standard streams."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next opened file would get its number, and all printed text
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        earlier = getattr(sys, name)
        encoding = "utf-8" if earlier is None else earlier.encoding
        if earlier is not None:
            with contextlib.suppress(OSError):
                earlier.flush()
        # Without a buffer in between, which would write twice after an interrupted write.
        stream = io.TextIOWrapper(Pipe(descriptor), encoding, errors="backslashreplace", line_buffering=True)  # type: ignore[type-var]
        setattr(sys, name, stream)


def hurry() -> None:
    """Call this when work begins: output no longer waits for its reader."""
    for pipe in _pipes():
        pipe.hurries = True


def finish() -> bool:
    """Call this at the end of the program: it waits a while for readers.

    If text was lost before `hurry`, it prints the reason and returns True.
    """
    lost = None
    for pipe in _pipes():
        pipe.drain(PATIENCE_S)
        if not pipe.hurries:
            lost = lost or pipe.lost
    if lost is not None:
        print(f"standard output: {lost.strerror}", file=sys.stderr)
    return lost is not None


def _pipes() -> Iterable[Pipe]:
    for stream in (sys.stdout, sys.stderr):
        pipe = getattr(stream, "buffer", None)
        if isinstance(pipe, Pipe):
            stream.flush()
            yield pipe
