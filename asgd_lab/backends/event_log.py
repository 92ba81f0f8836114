"""The event log: every message that a run's server accepted, in order. Replay and crash recovery read it.

A row holds the fields of one message by name, its times, and its immediate answer: version and lease of a grant, or
version, staleness and reason of a push's end. Later answers, and answers to other workers' requests, have rows of their
own, behind it. Times are nanoseconds of the run's own clock; if `clock` is not 0, the sender's times are of another
machine's clock, and must not be used for an order.

The first row holds the format's version. Logs of version 1, with fewer columns, are converted on reading.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.messages import (
    Ack,
    Answer,
    Close,
    FetchRequest,
    Grant,
    Join,
    Leave,
    Message,
    PushRequest,
    Stop,
    Wake,
)
from asgd_lab.record.rowfile import RowFile, extent, read_rows

FILE = "events.rows"
VERSION = 2
UNKNOWN = -9  # not recorded in a log of an earlier version


class Kind(IntEnum):
    """The type of a row's message."""

    JOIN = 0
    LEAVE = 1
    FETCH = 2
    PUSH = 3
    CLOSE = 4
    ATTACH = 5
    DIGEST = 6
    WAKE = 7
    GRANT = 8
    ACK = 9
    STOP = 10
    WAKE_AT = 11
    FORMAT = 12


class Attach(NamedTuple):
    """A new process continues a worker's life from a checkpoint; the server does not see it."""

    worker: int
    life: int


class Digest(NamedTuple):
    """A hash of the bytes of a version; the server does not see it."""

    version: int
    crc: int


class WakeAt(NamedTuple):
    """The time at which the server asked to be woken; -1: not any more."""

    at_ns: int


class Format(NamedTuple):
    """The version of the log's format."""

    version: int


Logged = Message | Answer | Attach | Digest | WakeAt | Format


class Times(NamedTuple):
    """The times of a message. All times of a request are known, for others only the server's; else UNKNOWN."""

    sent_ns: int
    heard_ns: int
    begun_ns: int  # of its service: the server's time at the call
    ended_ns: int
    received_ns: int = UNKNOWN  # at which the sender received its last answer before this message
    clock: int = 0  # the clock of the sender's times; 0: the server's own

    @classmethod
    def at(cls, now_ns: int) -> Times:
        """The same time for all."""
        return cls(now_ns, now_ns, now_ns, now_ns)


class Row(NamedTuple):
    """The columns. Fields that a message lacks are 0."""

    kind: int
    worker: int = -1
    incarnation: int = 0
    number: int = 0
    base: int = 0
    steps: int = 0  # of a push; for a fetch, of its immediate grant
    detail: int = 0  # of a fetch: 1 if ahead, and 2 more if without a lease; else buffer, why, slot, or a digest
    part: int = 0
    size_bytes: int = 0
    stopped: int = 0
    wasted: int = 0
    returned: int = 0
    version: int = UNKNOWN  # granted to a fetch, or made with a push, immediately; UNKNOWN: later
    staleness: int = UNKNOWN
    reason: int = 0
    sent_ns: int = 0
    heard_ns: int = 0
    begun_ns: int = 0
    ended_ns: int = 0
    received_ns: int = UNKNOWN
    clock: int = 0
    loss: float = 0.0
    error: float = 0.0

    @property
    def times(self) -> Times:
        return Times(self.sent_ns, self.heard_ns, self.begun_ns, self.ended_ns, self.received_ns, self.clock)

    @property
    def message(self) -> Logged:
        """The message of the row."""
        kind, worker, incarnation, number = self[:4]
        if kind == Kind.FETCH:
            return FetchRequest(
                worker,
                incarnation,
                number,
                bool(self.detail & 1),
                self.part,
                not self.detail & _NO_LEASE,
                self.stopped,
                self.wasted,
                self.returned,
            )
        if kind == Kind.PUSH:
            return PushRequest(
                worker, incarnation, number, self.base, self.steps, self.loss, self.error, self.detail, self.part,
                self.size_bytes, self.stopped, self.wasted, self.returned,
            )  # fmt: skip
        if kind == Kind.GRANT:
            return Grant(worker, incarnation, number, self.version, self.steps, self.detail, self.part)
        if kind == Kind.ACK:
            return Ack(worker, incarnation, number, self.version, self.staleness, self.steps, self.reason, self.part)
        if kind == Kind.JOIN:
            return Join(worker, number)
        if kind == Kind.LEAVE:
            return Leave(worker, incarnation, self.detail)
        if kind == Kind.CLOSE:
            return Close(self.detail)
        if kind == Kind.ATTACH:
            return Attach(worker, number)
        if kind == Kind.DIGEST:
            return Digest(number, self.detail)
        if kind == Kind.STOP:
            return Stop(worker, incarnation, number)
        if kind == Kind.WAKE_AT:
            return WakeAt(number)
        return Wake() if kind == Kind.WAKE else Format(number)

    @property
    def answer(self) -> Answer | None:
        """The immediate answer to a request; None if there was none, or if it is not recorded."""
        if self.version == UNKNOWN:
            return None
        worker, incarnation, number = self[1:4]
        if self.kind == Kind.FETCH:
            return Grant(worker, incarnation, number, self.version, self.steps, part=self.part)
        if self.kind == Kind.PUSH:
            return Ack(worker, incarnation, number, self.version, self.staleness, self.steps, self.reason, self.part)
        return None


FORMAT = f"{len(Row._fields) - 2}q2d"
_VERSION_1 = "7q2d3q"
_FETCH, _PUSH = int(Kind.FETCH), int(Kind.PUSH)  # plain integers are packed faster than members of an enumeration
_NO_LEASE = 2  # in a fetch's detail
_NOT_YET = UNKNOWN, UNKNOWN, 0


class EventLog:
    """A log for writing: a new one, or with `existing` that of a dead writer."""

    def __init__(self, path: Path, existing: bool = False) -> None:
        self._rows = RowFile(path, FORMAT, existing=existing)
        if not len(self._rows):
            self._rows.add(*Row(Kind.FORMAT, number=VERSION))

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, message: Logged, times: Times, answers: Sequence[Answer] = ()) -> None:
        """Write a message and the server's answers to it."""
        own: Grant | Ack | None = None
        if answers and (type(message) is FetchRequest or type(message) is PushRequest):
            own, answers = _own(message, answers)
        self._rows.add(*_row(message, times, own))
        for answer in answers:
            self._rows.add(*_row(answer, times, None))

    def close(self) -> None:
        self._rows.close()


def digest(parameters: Tensor) -> int:
    """The CRC-32 of all bytes of the parameters (P,)."""
    return zlib.crc32(parameters.numpy().data)


def read(path: Path) -> list[Row]:
    """All rows except the first; ScenarioError if the file is missing, damaged or of an unknown version."""
    if not os.path.lexists(path):
        raise ScenarioError(f"{path.parent}: has no record of its events: {path.name} is missing")
    if is_version_1(path):
        return list(_converted(read_rows(path, _VERSION_1).tolist()))
    rows = [Row._make(row) for row in read_rows(path, FORMAT).tolist()]
    if rows and (rows[0].kind, rows[0].number) != (Kind.FORMAT, VERSION):
        raise ScenarioError(f"{path}: is of version {rows[0].number} of the log's format; 1 and {VERSION} can be read")
    return rows[1:]


def is_version_1(path: Path) -> bool:
    """Whether the log has version 1 of the format."""
    try:
        extent(path, _VERSION_1)
    except ScenarioError:
        return False
    return True


def _converted(rows: Iterable[tuple[float, ...]]) -> Iterator[Row]:
    for kind, worker, incarnation, number, base, steps, detail, loss, error, sent, begun, ended in rows:
        yield Row(
            int(kind), int(worker), int(incarnation), int(number), int(base), int(steps), int(detail),
            part=-1, size_bytes=UNKNOWN, sent_ns=int(sent), heard_ns=UNKNOWN, begun_ns=int(begun), ended_ns=int(ended),
            loss=loss, error=error,
        )  # fmt: skip


def _own(message: FetchRequest | PushRequest, answers: Sequence[Answer]) -> tuple[Grant | Ack | None, Sequence[Answer]]:
    """The answer to this request, wherever it is among these, and the others."""
    kind = Grant if type(message) is FetchRequest else Ack
    exchange = message[:3], message.part
    for place, answer in enumerate(answers):
        if type(answer) is kind and (answer[:3], answer.part) == exchange:
            return answer, [*answers[:place], *answers[place + 1 :]] if len(answers) > 1 else ()
    return None, answers


def _row(message: Logged, times: Times, own: Grant | Ack | None) -> tuple[float, ...]:
    """The columns of a message, in the order of `Row`."""
    kind = type(message)
    if kind is PushRequest:
        worker, incarnation, number, base, steps, loss, error, buffer, *more = message  # type: ignore[misc]
        if own is None:
            return _PUSH, worker, incarnation, number, base, steps, buffer, *more, *_NOT_YET, *times, loss, error
        ended = own.version, own.staleness, own.reason  # type: ignore[union-attr]
        return _PUSH, worker, incarnation, number, base, steps, buffer, *more, *ended, *times, loss, error
    if kind is FetchRequest:
        worker, incarnation, number, ahead, part, lease, *void = message  # type: ignore[misc]
        ahead = ahead if lease else ahead + _NO_LEASE
        version, steps = (UNKNOWN, 0) if own is None else (own.version, own.steps)
        return (
            _FETCH, worker, incarnation, number, 0, steps, ahead, part, 0, *void, version, UNKNOWN, 0, *times, 0.0, 0.0,
        )  # fmt: skip
    return _rare(message)._replace(**times._asdict())


def _rare(message: Logged) -> Row:
    if isinstance(message, Join | Attach):
        return Row(Kind.JOIN if isinstance(message, Join) else Kind.ATTACH, message.worker, number=message.life)
    if isinstance(message, Leave):
        return Row(Kind.LEAVE, message.worker, message.incarnation, detail=message.why)
    if isinstance(message, Grant):
        worker, incarnation, number, version, steps, slot, part = message
        return Row(Kind.GRANT, worker, incarnation, number, 0, steps, slot, part, version=version)
    if isinstance(message, Ack):
        return Row(
            Kind.ACK, message.worker, message.incarnation, message.number, steps=message.steps, part=message.part,
            version=message.version, staleness=message.staleness, reason=message.reason,
        )  # fmt: skip
    if isinstance(message, Stop):
        return Row(Kind.STOP, *message)
    if isinstance(message, Close):
        return Row(Kind.CLOSE, detail=message.why)
    if isinstance(message, Digest):
        return Row(Kind.DIGEST, number=message.version, detail=message.crc)
    if isinstance(message, WakeAt):
        return Row(Kind.WAKE_AT, number=message.at_ns)
    return Row(Kind.FORMAT, number=message.version) if isinstance(message, Format) else Row(Kind.WAKE)
