"""Messages as bytes of one fixed size, packed from the fields of their types; they never contain vectors.

After a byte for the type come two times, as in `Heard` and `Told`, and the fields in their order.
"""

from __future__ import annotations

import struct
from typing import Any, get_type_hints

from asgd_lab.backends.event_log import Attach
from asgd_lab.backends.real.transport import (
    Connected,
    Failed,
    NewServer,
    Resending,
    Save,
    Saved,
    Welcome,
)
from asgd_lab.protocol.messages import Ack, Close, FetchRequest, Grant, Join, Leave, PushRequest, Stop

_LETTERS = {int: "q", float: "d", bool: "?"}
_TYPES: list[type] = [
    *(Join, Attach, Leave, FetchRequest, PushRequest, Saved, Resending, Close, Connected),
    *(Grant, Ack, Stop, Welcome, Save, NewServer, Failed),
]
"""The types of messages; a type's index is its byte. Both ends are of one version."""


_FORMATS = {
    kind: (index, struct.Struct("=B2q" + "".join(_LETTERS[hint] for hint in get_type_hints(kind).values())))
    for index, kind in enumerate(_TYPES)
}
_MADE: list[tuple[Any, struct.Struct]] = [(kind, _FORMATS[kind][1]) for kind in _TYPES]
SIZE = max(form.size for _, form in _FORMATS.values())


def pack(message: Any, first_ns: int = 0, second_ns: int = 0) -> bytes:
    """Pack a message and its two times."""
    index, form = _FORMATS[type(message)]
    return form.pack(index, first_ns, second_ns, *message)


def unpack_all(data: bytes) -> list[tuple[Any, int, int]]:
    """Unpack messages that were sent together."""
    size = _MADE[data[0]][1].size
    return [unpack(data)] if len(data) == size else [unpack(data[:size]), *unpack_all(data[size:])]


def unpack(data: bytes) -> tuple[Any, int, int]:
    """Unpack a message and its two times."""
    make, form = _MADE[data[0]]
    _, first_ns, second_ns, *fields = form.unpack(data)
    return make(*fields), first_ns, second_ns
