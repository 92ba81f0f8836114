"""Emulated devices: waits for stated times on the monotonic clock, which all processes of a node share.

The server has a request on an emulated link already, and hears it at its arrival time.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import time
from time import monotonic_ns as now_ns

from asgd_lab.backends.real.transport import Heard

PR_SET_TIMERSLACK = 29


class Arrivals:
    """Requests in flight, ordered by their arrival times."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Heard]] = []  # (arrival time, sequence number, request)
        self._count = itertools.count()

    def add(self, heard: Heard) -> None:
        """Add a request that arrives at its `sent_ns`."""
        heapq.heappush(self._due, (heard.sent_ns, next(self._count), heard))

    def take(self, now_ns: int) -> list[Heard]:
        """Remove and return all requests that have arrived by then, in order."""
        found = []
        while self._due and self._due[0][0] <= now_ns:
            found.append(heapq.heappop(self._due)[2]._replace(heard_ns=now_ns))
        return found

    def drop(self, worker: int) -> None:
        """Discard the requests of a dead worker."""
        self._due = [item for item in self._due if item[2].sender != worker]
        heapq.heapify(self._due)

    @property
    def next_ns(self) -> int | None:
        """The time of the next arrival; None without one."""
        return self._due[0][0] if self._due else None


def precise_timers() -> None:
    """Ask the kernel to wake this process exactly on time, instead of up to 50 microseconds later to save power."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


def wait_out(words: memoryview[int], word: int, begun_ns: int, due_ns: int, stated_ns: int) -> int:
    """Sleep until then; add the time since `begun_ns` to `word`, and the stated time to the next. Returns the end."""
    sleep_until(due_ns)
    ended_ns = now_ns()
    words[word] += max(stated_ns, ended_ns - begun_ns)
    words[word + 1] += stated_ns
    return ended_ns


def sleep_until(due_ns: int) -> None:
    """Sleep until the clock shows `due_ns`."""
    while (left_ns := due_ns - now_ns()) > 0:
        time.sleep(left_ns * 1e-9)
