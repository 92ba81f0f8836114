"""A GPU worker's end: a push is sent after its copy to the host, and a center is copied when it is granted.

If the algorithm overlaps, both happen beside the minibatches, and `progress` is called between these. Messages leave in
the order of sending, so a message behind a push waits for that push's copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic_ns as now_ns

import torch
from torch import Tensor

from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.transport import FromWorker, Told, WorkerEnd
from asgd_lab.backends.real.transports.memory import protect
from asgd_lab.backends.real.transports.staging import Copy, Staging
from asgd_lab.protocol.messages import Grant, PushRequest


class Staged:
    """A wrapper of `end`, which has its vectors in host memory; `slot` maps a version of `size` elements, writable."""

    def __init__(
        self, end: WorkerEnd, device: torch.device, size: int, slot: Callable[[int], Tensor], overlaps: bool,
        words: memoryview[int],
    ) -> None:  # fmt: skip
        self._end, self._device, self._slot, self._overlaps, self._words = end, device, slot, overlaps, words
        self.staging = Staging(device)
        self._mapped: dict[int, Tensor] = {}
        self._updates: dict[int, tuple[Tensor, Tensor]] = {}  # by buffer: on the device, and on the host
        # Two centers: the next one may arrive while an update is measured from the first.
        self._centers = [torch.empty(size, device=device) for _ in range(2 if overlaps else 1)]
        self._waiting: deque[tuple[FromWorker, int, FromWorker | None, Copy | None]] = deque()
        self._inbox: deque[Told] = deque()
        self._coming: tuple[Grant, Copy] | None = None

    def begin(self) -> None:
        """Begin a life after all copies are done."""
        for *_, copy in self._waiting:
            if copy is not None:
                copy.wait()
        if self._coming is not None:
            self._coming[1].wait()
        self._waiting.clear()
        self._inbox.clear()
        self._coming = None

    def update(self, buffer: int) -> Tensor:
        """(P,) on the device."""
        if buffer not in self._updates:
            host = self._end.update(buffer)
            self._updates[buffer] = torch.empty_like(host, device=self._device), host
        return self._updates[buffer][0]

    def send(
        self, message: FromWorker, sent_ns: int = 0, received_ns: int = 0, behind: FromWorker | None = None
    ) -> None:
        """Send behind waiting messages; a push after the copy of its update. If it overlaps, it does not wait."""
        copy = None
        if type(message) is PushRequest and self._updates:
            copy = self.staging.to_host(*self._updates[message.buffer])
        self._waiting.append((message, received_ns, behind, copy))
        if not self._overlaps or (copy is None and len(self._waiting) == 1):
            self.flush()

    def hear(self) -> Told:
        """Hear after all waiting messages are sent."""
        self.flush()
        return self._inbox.popleft() if self._inbox else self._end.hear()

    def has_news(self) -> bool:
        """Whether a message has come."""
        return bool(self._inbox) or self._end.has_news()

    def progress(self) -> None:
        """Send messages whose copies are done, and begin the copy of a granted center."""
        if not self._overlaps:
            return
        while self._waiting and ((copy := self._waiting[0][-1]) is None or copy.done()):
            self._send_first()
        while self._end.has_news():
            told = self._end.hear()
            self._inbox.append(told)
            message = told[0]
            if type(message) is Grant and message.steps and self._coming is None:
                self._coming = message, self._copy(message.slot)

    def flush(self) -> None:
        """Send all waiting messages."""
        while self._waiting:
            self._send_first()

    def center(self, grant: Grant) -> Tensor:
        """(P,) on the device."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming[1].wait()
        if coming is None or coming[0] != grant:
            self._copy(grant.slot).wait()
        self._centers.reverse()
        return self._centers[-1]

    def close(self) -> None:
        """Unregister all vectors from CUDA; note their number, and the reason for refused ones."""
        self._words[Words.REGISTERED], self._words[Words.BUFFERED] = self.staging.counts()
        print(self.staging.refused, end="", flush=True)
        self.staging.close()
        self._end.close()

    def _send_first(self) -> None:
        message, received_ns, behind, copy = self._waiting[0]
        if copy is not None:
            copy.wait()
        self._waiting.popleft()
        self._end.send(message, now_ns(), received_ns, behind)

    def _copy(self, slot: int) -> Copy:
        is_new = slot not in self._mapped
        if is_new:
            self._mapped[slot] = self._slot(slot)
        copy = self.staging.to_device(self._mapped[slot], self._centers[0])
        if is_new:  # after its registration, which few drivers allow for read-only mappings
            protect(self._mapped[slot])
        return copy
