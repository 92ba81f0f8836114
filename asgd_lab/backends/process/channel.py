"""The control channel: messages of fixed size over a socket pair, one pair a worker; vectors never travel on it.

`SOCK_SEQPACKET` keeps messages whole and in order, wakes a sleeping reader at once, and reports the death of the other
end as the end of the stream.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from enum import IntEnum
from typing import NamedTuple


class Ask(IntEnum):
    """What a worker says to the server."""

    READY = 0
    FETCH = 1
    PUSH = 2
    LEAVE = 3


class Request(NamedTuple):
    """A worker's message; `sent_ns` orders requests that the server finds waiting together."""

    ask: int
    sent_ns: int
    sequence: int = 0
    base: int = 0
    steps: int = 0
    loss: float = 0.0
    error: float = 0.0


class Answer(NamedTuple):
    """The server's message: a fetch's version, slot and minibatches; or a push's version, staleness and minibatches.

    The first one a worker gets says go: the run's clock started at `steps`, in nanoseconds of the monotonic clock.
    """

    version: int
    detail: int
    steps: int
    waited_ns: int = 0  # between sending the request and its service, or its release by a gate


_REQUEST = struct.Struct("=qqqqqdd")
_ANSWER = struct.Struct("=qqqq")


def pair() -> tuple[socket.socket, socket.socket]:
    """The server's end and the worker's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def ask(end: socket.socket, request: Request) -> None:
    """Send a request."""
    end.send(_REQUEST.pack(*request))


def hear(end: socket.socket) -> Request | None:
    """The next request; None when the worker is gone."""
    try:
        data = end.recv(_REQUEST.size)
    except ConnectionResetError:
        return None
    return Request._make(_REQUEST.unpack(data)) if data else None


def answer(end: socket.socket, reply: Answer) -> None:
    """Answer a request; a worker that is gone needs no answer."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        end.send(_ANSWER.pack(*reply))


def await_answer(end: socket.socket) -> Answer | None:
    """The answer to the last request; None when the server is gone."""
    try:
        data = end.recv(_ANSWER.size)
    except ConnectionResetError:
        return None
    return Answer._make(_ANSWER.unpack(data)) if data else None
