"""Standard output and standard error that never end the program, and never hold up its work.

All that is printed goes through two streams made here, whoever prints. What nobody can receive (the stream is closed,
the reader is gone, the disk is full) is dropped; what the encoding lacks is written as an escape. While work goes on, a
reader that does not read is not waited for: up to `KEPT_BYTES` wait in memory until it does. This file imports nothing
heavy.
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
    """A descriptor whose every write succeeds. `hurries`: nobody is waited for."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._waiting = bytearray()
        self.hurries = False
        self.lost: OSError | None = None  # why something was dropped, unless its reader had just seen enough

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def write(self, data: ReadableBuffer, /) -> int:
        """Take all of it."""
        size = memoryview(data).nbytes
        if len(self._waiting) + size <= KEPT_BYTES:
            self._waiting += data
        self._pass_on(0.0 if self.hurries else None)
        return size

    def drain(self, patience_s: float) -> None:
        """Wait until all is written, or nothing was for so long."""
        while self._waiting and self._pass_on(patience_s):
            pass

    def _pass_on(self, patience_s: float | None) -> bool:
        """Write what waits, as far as it is taken; whether any of it was."""
        taken = False
        with contextlib.suppress(BrokenPipeError):
            try:
                while self._waiting and self._is_ready(patience_s):
                    # A pipe that is ready has room for so much; a terminal takes it a line or so at a time.
                    part = bytes(self._waiting[: select.PIPE_BUF])
                    del self._waiting[: len(part)]  # before the write: an interrupt just after it must not repeat it
                    size = os.write(self._fd, part)
                    self._waiting[:0] = part[size:]
                    taken = True
                return taken
            except BlockingIOError:  # whoever shares the descriptor made it non-blocking
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
    """Put such streams in place of both standard ones."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file that is opened would get its number, and all that is printed
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        earlier = getattr(sys, name)
        encoding = "utf-8" if earlier is None else earlier.encoding
        if earlier is not None:
            with contextlib.suppress(OSError):
                earlier.flush()
        # No buffer in between, which would repeat what an interrupted write has written.
        stream = io.TextIOWrapper(Pipe(descriptor), encoding, errors="backslashreplace", line_buffering=True)  # type: ignore[type-var]
        setattr(sys, name, stream)


def hurry() -> None:
    """Work begins: from now on no reader is waited for."""
    for pipe in _pipes():
        pipe.hurries = True


def finish() -> bool:
    """The end of the program: give readers a while. True if what was only to be printed was lost, which is said."""
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
