"""What the parent keeps of a run's processes: one place a worker, and the losses."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess


@dataclass(slots=True)
class Place:
    """One worker's place: its process, the server's end of its line, and what has become of earlier processes."""

    process: BaseProcess | None = None
    end: socket.socket | None = None
    started: int = 0
    in_vain: int = 0
    steps: int = 0  # when its last process died
    given_up_ns: int | None = None
    due_ns: int | None = None  # when its next process is to be started
    expected_ns: int | None = None  # its death was asked for: start the next one then


@dataclass(slots=True)
class Losses:
    """What has happened to the processes of a run."""

    workers: int = 0  # that died
    servers: int = 0
    restarts: int = 0  # of workers
    silences: int = 0  # workers that were given up
    awakenings: int = 0  # and came back by themselves
    log: list[str] = field(default_factory=list)
