"""A GPU worker's exchanges: a push is told of when its copy is made, and a center is copied when it is granted.

Where the algorithm overlaps, both happen beside the minibatches, and `look` is called between these. Requests
leave in the order in which they were made, so one behind a push waits for that push's copy.
"""

from __future__ import annotations

from collections import deque
from time import monotonic_ns as now_ns

import torch
from torch import Tensor

from asgd_lab.backends.real.channel import Answer, Ask, Request
from asgd_lab.backends.real.link import Link
from asgd_lab.backends.real.memory import Stack, protect
from asgd_lab.backends.real.staging import Copy, Staging

Key = tuple[int, int]


class Staged:
    """In a link's place: `ask` and `wait` are the same, and vectors go both ways."""

    def __init__(self, link: Link, device: torch.device, slots: Stack, overlaps: bool) -> None:
        self._link, self._slots, self._overlaps = link, slots, overlaps
        self.staging = Staging(device)
        self._mapped: dict[int, Tensor] = {}
        # While one is measured from, the next may arrive.
        self._centers = [torch.empty(slots.length, device=device) for _ in range(2 if overlaps else 1)]
        self._waiting: deque[tuple[Request, Copy | None]] = deque()
        self._fetch: Key | None = None
        self._coming: Copy | None = None

    def begin(self) -> None:
        """A new life: forget what the last one had under way, once nothing is copied any more."""
        for _, copy in self._waiting:
            if copy is not None:
                copy.wait()
        if self._coming is not None:
            self._coming.wait()
        self._waiting.clear()
        self._fetch = self._coming = None

    def ask(self, request: Request) -> Key:
        """Send a request, behind those that wait."""
        if request.ask == Ask.FETCH:
            self._fetch = request.ask, request.number
        return self._leave(request, None)

    def push(self, request: Request, update: Tensor, mailbox: Tensor) -> Key:
        """Copy an update, and send the request that speaks of it; an algorithm that overlaps waits for neither."""
        return self._leave(request, self.staging.to_host(update, mailbox))

    def wait(self, key: Key) -> Answer:
        """The answer, as `Link.wait`."""
        self.flush()
        return self._link.wait(key)

    def look(self) -> None:
        """Between two minibatches: send what is copied by now, and begin to copy what is granted."""
        while self._waiting and ((copy := self._waiting[0][1]) is None or copy.done()):
            self._send_first()
        if self._fetch is not None and self._coming is None:
            granted = self._link.heard(self._fetch)
            if granted is not None and granted.steps:
                self._coming = self._copy(granted.detail)

    def flush(self) -> None:
        """Send all that waits."""
        while self._waiting:
            self._send_first()

    def center(self, slot: int) -> Tensor:
        """(P,) the version that was granted, on the device; good until the next one is asked for here."""
        copy = self._copy(slot) if self._coming is None else self._coming
        copy.wait()
        self._fetch = self._coming = None
        self._centers.reverse()
        return self._centers[-1]

    def _leave(self, request: Request, copy: Copy | None) -> Key:
        self._waiting.append((request, copy))
        if not self._overlaps or (copy is None and len(self._waiting) == 1):
            self.flush()
        return request.ask, request.number

    def _send_first(self) -> None:
        request, copy = self._waiting[0]
        if copy is not None:
            copy.wait()
        self._waiting.popleft()
        self._link.ask(request._replace(sent_ns=now_ns()))

    def _copy(self, slot: int) -> Copy:
        is_new = slot not in self._mapped
        if is_new:
            self._mapped[slot] = self._slots.vector(slot, writable=True)
        copy = self.staging.to_device(self._mapped[slot], self._centers[0])
        if is_new:  # once it is registered, which few drivers do with what is mapped read-only
            protect(self._mapped[slot])
        return copy
