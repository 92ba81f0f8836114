"""The control channel: messages of fixed size over a socket pair, one pair a worker; vectors never travel on it.

`SOCK_SEQPACKET` keeps messages whole and in order, wakes a sleeping reader at once, and reports the death of the other
end as the end of the stream. The parent holds the server's ends as well: a worker does not hear a server die, it waits,
and the next server asks it to say again what is not answered, and hears nothing else before. So requests come in order,
though the dead server may have taken some of them along, and may come twice, which their numbers tell.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from enum import IntEnum
from typing import NamedTuple


class Ask(IntEnum):
    """What a worker says to the server; an answer names what it answers, or is one of the last three."""

    READY = 0  # begin a life: `number` is unlike that of any other life
    FETCH = 1
    PUSH = 2
    LEAVE = 3
    SAVED = 4  # its part of checkpoint `number` is written, as it was told with this `detail`
    AGAIN = 5  # the server is new: say this, and then again what is not answered
    OUT = 6  # this life is over: the worker was given up meanwhile
    SAVE = 7  # write your part of checkpoint `number` when all that you wait for is a fetch; `detail` counts these


class Request(NamedTuple):
    """A worker's message; `sent_ns` is when it arrives, which orders requests that the server finds waiting."""

    ask: int
    incarnation: int
    number: int  # of a fetch or a push, each counted from 1
    sent_ns: int
    base: int = 0
    steps: int = 0
    detail: int = 0  # of a fetch: ahead; of a push: its buffer; of a leave: why
    loss: float = 0.0
    error: float = 0.0


class Answer(NamedTuple):
    """The server's message: a fetch's version, slot and minibatches; or a push's version, staleness and minibatches.

    To READY: the last push's number, minibatches pushed, and when the run's clock started, in nanoseconds of the
    monotonic clock; in `waited_ns` the last fetch's number.
    """

    to: int
    number: int
    incarnation: int
    version: int = 0
    detail: int = 0
    steps: int = 0
    waited_ns: int = 0  # between sending the request and its service, or its release by a gate
    released_ns: int = 0  # when it was sent


class Order(IntEnum):
    """What parent and server say to each other."""

    STOP = 0  # close the run
    PROCESS = 1  # worker `detail` has a new process, whose server's end comes with the message
    SILENT = 2  # worker `detail` gives no sign of life: given up
    AWAKE = 3  # it is back


_REQUEST = struct.Struct("=7q2d")
_ANSWER = struct.Struct("=8q")
_ORDER = struct.Struct("=2q")


def pair() -> tuple[socket.socket, socket.socket]:
    """The server's end and the worker's; or the parent's and the server's."""
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
    """The next answer; None when nobody will ever give one."""
    try:
        data = end.recv(_ANSWER.size)
    except ConnectionResetError:
        return None
    return Answer._make(_ANSWER.unpack(data)) if data else None


def order(line: socket.socket, word: Order, detail: int = 0, end: socket.socket | None = None) -> None:
    """Say a word to the other side, with a descriptor if `end` is given; a side that is gone hears nothing."""
    message = _ORDER.pack(word, detail)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if end is None:
            line.send(message)
        else:
            socket.send_fds(line, [message], [end.fileno()])


def obey(line: socket.socket) -> tuple[Order, int, socket.socket | None] | None:
    """The next word; None when the other side is gone."""
    try:
        data, descriptors, _, _ = socket.recv_fds(line, _ORDER.size, 1)
    except ConnectionResetError:
        return None
    if not data:
        return None
    word, detail = _ORDER.unpack(data)
    return Order(word), detail, socket.socket(fileno=descriptors[0]) if descriptors else None
