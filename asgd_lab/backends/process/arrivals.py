"""Requests on an emulated way: the server has them already, and hears them when they arrive."""

from __future__ import annotations

import heapq
import itertools

from asgd_lab.backends.process.channel import Request


class Arrivals:
    """Ordered by the time of arrival."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, int, Request]] = []  # when, a number, the worker, what
        self._count = itertools.count()

    def add(self, worker: int, request: Request) -> None:
        """It arrives at its `sent_ns`."""
        heapq.heappush(self._due, (request.sent_ns, next(self._count), worker, request))

    def take(self, now_ns: int) -> list[tuple[int, Request | None]]:
        """Remove and return what has arrived by then, in order."""
        found: list[tuple[int, Request | None]] = []
        while self._due and self._due[0][0] <= now_ns:
            found.append(heapq.heappop(self._due)[2:])
        return found

    def drop(self, worker: int) -> None:
        """Forget what a worker that is gone has sent."""
        self._due = [item for item in self._due if item[2] != worker]
        heapq.heapify(self._due)

    @property
    def next_ns(self) -> int | None:
        """When the next one arrives."""
        return self._due[0][0] if self._due else None
