"""The record that a run can be repeated from: what its server was told, in order, in a file of rows of its directory.

A row is an event of the protocol, and when it happened: `sent_ns` (the request had arrived), `begun_ns` and `ended_ns`
(its service), on the run's own clock. Nothing else decides a run's outcome but its scenario.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.events import Event
from asgd_lab.record.rowfile import read_rows

FILE = "events.rows"
FORMAT = "7q2d3q"  # an Event, then the three times


class Happened(NamedTuple):
    """An event and its times in nanoseconds."""

    event: Event
    sent_ns: int
    begun_ns: int
    ended_ns: int


def digest(parameters: Tensor) -> int:
    """Thirty-two bits that depend on every byte of (P,) parameters."""
    return zlib.crc32(parameters.numpy().data)


def read(path: Path) -> list[Happened]:
    """All that was committed; ScenarioError if there is no such file, or it is not of this kind, or damaged."""
    if not os.path.lexists(path):
        raise ScenarioError(f"{path.parent}: has no record of its events: {path.name} is missing")
    rows = read_rows(path, FORMAT).tolist()
    return [Happened(Event._make(row[:9]), *row[9:]) for row in rows]
