"""Messages over one socket pair per worker, between processes of one node, which share one clock.

`SOCK_SEQPACKET` keeps messages whole and in order, wakes a sleeping reader at once, and reports the death of the other
end as the end of the stream. The supervisor holds the server's ends as well: so a worker does not notice a server's
death; it waits until the next server announces itself. The server and its supervisor have another such pair, which also
passes the ends of new processes as descriptors.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from time import monotonic_ns as now_ns
from typing import Any, NamedTuple

from torch import Tensor

from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.transport import (
    SUPERVISOR,
    Closed,
    Connected,
    FromWorker,
    Heard,
    Memory,
    Sign,
    Told,
    ToWorker,
    Welcome,
)
from asgd_lab.backends.real.wire import SIZE, pack, unpack, unpack_all
from asgd_lab.protocol.messages import Close, Grant, Stop, Why

_REPORT = struct.Struct("=2q")


class SocketEnd:
    """A worker's end."""

    def __init__(self, memory: Memory, worker: int, end: socket.socket) -> None:
        self._memory, self._worker, self._end = memory, worker, end
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._versions: dict[int, Tensor] = {}

    def begin(self) -> None:
        """Do nothing: no message is buffered here."""

    def update(self, buffer: int) -> Tensor:
        """(P,) the mailbox itself."""
        return self._memory.mailbox(self._worker, buffer, writable=True)

    def send(
        self, message: FromWorker, sent_ns: int = 0, received_ns: int = 0, behind: FromWorker | None = None
    ) -> None:
        """Send at once: no copy is waited for."""
        data = pack(message, sent_ns, received_ns)
        if behind is not None:
            data += pack(behind, sent_ns, received_ns)
        try:
            self._end.send(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def hear(self) -> Told:
        """The next message from the server."""
        try:
            data = self._end.recv(SIZE)
        except ConnectionResetError:
            raise Closed from None
        if not data:
            raise Closed
        return unpack(data)

    def has_news(self) -> bool:
        """Whether there is one."""
        return bool(self._poll.poll(0))

    def progress(self) -> None:
        """Do nothing: no transfer needs this process."""

    def flush(self) -> None:
        """Do nothing: all messages have left."""

    def center(self, grant: Grant) -> Tensor:
        """(P,) the granted slot itself, mapped read-only."""
        slot = grant.slot
        if slot not in self._versions:
            self._versions[slot] = self._memory.slot(slot)
        return self._versions[slot]

    def close(self) -> None:
        """Do nothing: the socket closes with its process, and that tells the server of the end."""


class ServerPlace(NamedTuple):
    """The argument of a server process: its end of each worker's pair, and of its supervisor's."""

    ends: dict[int, socket.socket]
    line: socket.socket


class SocketsEnd:
    """The server's end."""

    clock = 0

    def __init__(self, memory: Memory, words: Words, place: ServerPlace, precise: bool) -> None:
        self.memory = memory
        self._ends, self._line = dict(place.ends), place.line
        self._words = words.worker
        self._coming: list[tuple[int, socket.socket]] = []
        self._senders: dict[int, int] = {}  # by descriptor
        self._epoll = None if precise else select.epoll()  # its time-outs are in milliseconds
        for worker, end in [*self._ends.items(), (SUPERVISOR, self._line)]:
            self._register(worker, end)

    def hear(self, patience_s: float | None) -> list[Heard]:
        """The messages in the order of sending, the supervisor's last."""
        if self._coming:
            for worker, end in self._coming:
                self._ends[worker] = end
                self._register(worker, end)
            self._coming.clear()
        if self._epoll is not None:
            ready = [descriptor for descriptor, _ in self._epoll.poll(patience_s)]
        else:
            ready = select.select(list(self._senders), [], [], patience_s)[0]
        heard, ordered = [], False
        for descriptor in ready:
            sender = self._senders[descriptor]
            if sender == SUPERVISOR:
                ordered = True
            else:
                heard += self._receive(sender)
        if len(heard) > 1:
            heard.sort(key=_sent_ns)
        return heard + self._orders() if ordered else heard

    def tell(self, worker: int, message: ToWorker, waited_ns: int = 0, released_ns: int = 0) -> None:
        """Send at once; a Stop is also written to a progress word, which the worker reads between two minibatches."""
        end = self._ends.get(worker)
        if end is None:
            return
        try:  # this is on every request's way, and a context manager costs as much as the packing
            end.send(pack(message, waited_ns, released_ns))
        except (BrokenPipeError, ConnectionResetError):
            return
        if type(message) is Stop:
            self._words[worker, Words.STOPPED] = message.number
        elif type(message) is Welcome:
            self._words[worker, Words.STOPPED] = 0

    def report(self, sign: Sign, worker: int) -> None:
        """Send at once: no copy is waited for."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._line.send(_REPORT.pack(sign, worker))

    def _register(self, sender: int, end: socket.socket) -> None:
        self._senders[end.fileno()] = sender
        if self._epoll is not None:
            self._epoll.register(end, select.EPOLLIN)

    def _receive(self, worker: int) -> list[Heard]:
        end = self._ends[worker]
        try:
            data = end.recv(2 * SIZE)
        except ConnectionResetError:
            data = b""
        if data:
            now = now_ns()
            return [Heard(worker, *each, now) for each in unpack_all(data)]
        del self._senders[end.fileno()]
        if self._epoll is not None:
            self._epoll.unregister(end)
        end.close()
        del self._ends[worker]
        return [Heard(worker, None)]

    def _orders(self) -> list[Heard]:
        """The supervisor's messages; before a worker's new process, the rest of its dead predecessor's messages."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._line, SIZE, 1)
        except ConnectionResetError:
            data = b""
        if not data:
            return [Heard(SUPERVISOR, None)]
        message = unpack(data)[0]
        if not isinstance(message, Connected):
            return [Heard(SUPERVISOR, message)]
        heard = []
        while message.worker in self._ends:
            heard += self._receive(message.worker)
        self._coming.append((message.worker, socket.socket(fileno=descriptors[0])))
        return [*heard, Heard(SUPERVISOR, message)]


def _sent_ns(heard: Heard) -> int:
    return heard.sent_ns


class Sockets:
    """The supervisor's side."""

    def __init__(self) -> None:
        self._ends: dict[int, socket.socket] = {}
        self._line: socket.socket | None = None

    @contextlib.contextmanager
    def connecting_server(self) -> Iterator[ServerPlace]:
        """See `Switchboard`; copies of the workers' pairs stay here, so that no worker notices a server's death."""
        self._line, theirs = _pair()
        with theirs:
            yield ServerPlace(self._ends, theirs)

    @contextlib.contextmanager
    def connecting_worker(self, worker: int) -> Iterator[socket.socket]:
        """See `Switchboard`; a running server gets its end after the process has started."""
        ours, theirs = _pair()
        with theirs:
            try:
                yield theirs
            except BaseException:
                ours.close()
                raise
        if worker in self._ends:
            self._ends[worker].close()
        self._ends[worker] = ours
        self._say(pack(Connected(worker)), [ours])

    def stop(self) -> None:
        """Tell the server to stop, by a word on the line."""
        self._say(pack(Close(Why.STOPPED)), [])

    def waitable(self) -> list[socket.socket]:
        """The line to the server, to wait on; nothing after its end."""
        return [] if self._line is None else [self._line]

    def heard(self, ready: Sequence[Any]) -> tuple[Sign, int] | None:
        """The next report; a server that is dead makes none."""
        if self._line is None or self._line not in ready:
            return None
        try:
            data = self._line.recv(_REPORT.size)
        except ConnectionResetError:
            return None
        if not data:
            return None
        sign, worker = _REPORT.unpack(data)
        return Sign(sign), worker

    def disconnect_server(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def disconnect_workers(self) -> None:
        for end in self._ends.values():
            end.close()
        self._ends.clear()

    def _say(self, data: bytes, descriptors: Sequence[socket.socket]) -> None:
        if self._line is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._line, [data], [each.fileno() for each in descriptors])


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
