"""What a server is told, as values: fed to another server in the same order, they make the same versions and grants.

The whole course of a run is a function of its events: they are what a run has to record to be repeated, and what a
server that starts anew has to read to be the one that died.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from asgd_lab.protocol.grants import Grant
from asgd_lab.protocol.replica import Arrived
from asgd_lab.protocol.server import Server


class Kind(IntEnum):
    """What happened."""

    JOIN = 0
    LEAVE = 1
    FETCH = 2
    PUSH = 3
    CLOSE = 4
    ATTACH = 5  # a new process takes up a worker's life where a checkpoint has it; nothing for the server
    DIGEST = 6  # version `number` has this hash (`detail`) of its bytes; likewise


class Why(IntEnum):
    """Why a worker is out, or why a run was closed: for those who read a record; the server does not care."""

    DONE = 0  # its program has ended; the budget is used up
    DIED = 1
    SILENT = 2  # it gave no sign of life for too long
    NOT_FINITE = 3  # its loss was no number
    STOPPED = 4  # by the run's clock, or by whoever runs it


class Event(NamedTuple):
    """One call of a server."""

    kind: int
    worker: int = -1
    incarnation: int = 0
    number: int = 0  # of this worker's fetches, or of its pushes: each counted from 1
    base: int = 0
    steps: int = 0
    detail: int = 0  # of a fetch: whether it asks ahead; of a push: which buffer it leaves; else a Why
    loss: float = 0.0
    error: float = 0.0

    @property
    def arrived(self) -> Arrived:
        """The push."""
        return Arrived(self.worker, self.incarnation, self.number, self.base, self.steps, self.loss, self.error)


def feed(server: Server, event: Event) -> list[Grant]:
    """Tell the server; its answers."""
    kind = event.kind
    if kind == Kind.PUSH:
        return server.on_push(event.arrived)
    if kind == Kind.FETCH:
        return server.on_fetch(event.worker, bool(event.detail))
    if kind == Kind.JOIN:
        return server.on_join(event.worker)
    if kind == Kind.LEAVE:
        return server.on_leave(event.worker)
    return server.close() if kind == Kind.CLOSE else []
