"""Notes on what a run's server hears: the order of a run whose backend keeps no event log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from asgd_lab.protocol.messages import Answer, Close, FetchRequest, Join, Leave, Message, PushRequest, Wake
from asgd_lab.protocol.server import Server


class Heard(NamedTuple):
    """A message, the time on the run's clock, and the server's answers."""

    message: Message
    now_ns: int
    answers: tuple[Answer, ...]


_notes: ContextVar[list[Heard] | None] = ContextVar("notes", default=None)


@contextlib.contextmanager
def overhearing() -> Iterator[list[Heard]]:
    """Yield the list of all that the server of a run inside hears; the run is in this thread."""
    heard: list[Heard] = []
    token = _notes.set(heard)
    try:
        yield heard
    finally:
        _notes.reset(token)


def server(*arguments: Any) -> Server:
    """A server; one that is overheard inside `overhearing`."""
    heard = _notes.get()
    return Server(*arguments) if heard is None else Overheard(heard, *arguments)


class Overheard(Server):
    """A server that notes each message from outside, however it is called."""

    __slots__ = ("_heard", "_is_inside")

    def __init__(self, heard: list[Heard], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._heard, self._is_inside = heard, False

    def on_push(self, push: PushRequest) -> list[Answer]:
        return self._noted(push, lambda: Server.on_push(self, push))

    def on_fetch(self, request: FetchRequest) -> list[Answer]:
        return self._noted(request, lambda: Server.on_fetch(self, request))

    def on_join(self, worker: int) -> list[Answer]:
        return self._noted(Join(worker), lambda: Server.on_join(self, worker))

    def on_leave(self, worker: int) -> list[Answer]:
        message = Leave(worker, self.member(worker).incarnation)
        return self._noted(message, lambda: Server.on_leave(self, worker))

    def on_wake(self) -> list[Answer]:
        return self._noted(Wake(), lambda: Server.on_wake(self))

    def close(self) -> list[Answer]:
        """See `Server`; a server that closes by itself has heard nothing."""
        return self._noted(Close(), lambda: Server.close(self))

    def _noted(self, message: Message, call: Callable[[], list[Answer]]) -> list[Answer]:
        if self._is_inside:
            return call()
        self._is_inside = True
        try:
            answers = call()
        finally:
            self._is_inside = False
        self._heard.append(Heard(message, self.now_ns, tuple(answers)))
        return answers
