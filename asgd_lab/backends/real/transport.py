"""The transport: the few calls that carry everything between a real run's workers, its server, and its supervisor.

The loops of worker, server and supervisor, checkpoints and failure detection are written once, over these calls; a file
of `transports/` gives them their meaning. No socket, no descriptor and no shared memory is named outside of it.

Every end tells of a death on its other side: messages of one worker arrive in the order in which it sent them, and
then `None`. A new server tells each worker that it is new (`NewServer`); the worker answers `Resending`, and sends
again what is not answered. So a request may come twice, which its number tells, and none is lost with a server.

P is the length of the flat vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from asgd_lab.backends.event_log import Attach
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.protocol.messages import Ack, Close, FetchRequest, Grant, Join, Leave, PushRequest, Stop

SUPERVISOR = -1  # in place of a worker: who started the server


class Closed(Exception):
    """Nobody will hear or answer this worker any more: the run is over."""


# ---------------------------------------------------------------------- messages that are only a real run's


class Saved(NamedTuple):
    """From a worker: its part of a checkpoint is written."""

    worker: int
    incarnation: int
    checkpoint: int
    told: int  # as the Save said


class Resending(NamedTuple):
    """From a worker: what it has no answer to follows again."""

    worker: int


class Connected(NamedTuple):
    """From the supervisor: the worker has a new process, which will send."""

    worker: int


class Welcome(NamedTuple):
    """To a worker: its life has begun, and its counts go on from here."""

    worker: int
    incarnation: int
    life: int
    pushes: int
    minibatches: int
    fetches: int
    start_ns: int  # when the run's clock started


class Save(NamedTuple):
    """To a worker: write your part of a checkpoint as soon as you wait for nothing but a fetch."""

    worker: int
    incarnation: int
    checkpoint: int
    told: int  # counts these


class NewServer(NamedTuple):
    """To a worker: whoever asks this has heard nothing from it."""


class Failed(NamedTuple):
    """To a worker: it was taken for failed, and this life of it is over."""

    worker: int
    incarnation: int


FromWorker = Join | Attach | Leave | FetchRequest | PushRequest | Saved | Resending
ToWorker = Grant | Ack | Stop | Welcome | Save | NewServer | Failed


class Sign(IntEnum):
    """What the server reports of a worker to the supervisor."""

    SILENT = 0  # it gives no sign of life, and is taken for failed
    AWAKE = 1  # it begins a life


class Heard(NamedTuple):
    """What came from a worker, or from the supervisor; None: from there nothing will come any more."""

    sender: int
    message: FromWorker | Close | Connected | None
    sent_ns: int = 0  # when it is to be there, on the sender's clock
    received_ns: int = 0  # when the sender had received the last answer that it took before
    heard_ns: int = 0  # when it was heard


Told = tuple[ToWorker, int, int]
"""What came to a worker; for how long a request had waited between being sent and its service, or its release by a
gate; and when the answer was sent. Times are in nanoseconds.
"""


# ---------------------------------------------------------------------- the ends


class Memory(Protocol):
    """Where a server's vectors lie."""

    def slot(self, index: int, writable: bool = False) -> Tensor:
        """(P,) a buffer for versions; slot 0 holds the initial one."""

    def state(self, index: int) -> Tensor:
        """(P,) a buffer for what the rule keeps; there are two of each."""

    def scalar(self, index: int) -> Tensor:
        """() float64, a number that the rule keeps; there are two of each."""

    def copy(self, index: int) -> Tensor:
        """(P,) a buffer for an update that the server keeps while its worker goes on."""

    def mailbox(self, worker: int, buffer: int, writable: bool = False) -> Tensor:
        """(P,) the update that a push from this buffer speaks of, once the push is heard; its worker writes it."""


class WorkerEnd(Protocol):
    """A worker's end, used by one thread."""

    def begin(self) -> None:
        """A new life: nothing of an earlier one is to be sent or heard any more."""

    def update(self, buffer: int) -> Tensor:
        """(P,) where to make the update of the pushes from this buffer."""

    def send(self, message: FromWorker, sent_ns: int = 0, received_ns: int = 0) -> None:
        """Send a message; Closed if nobody will hear it. A push's update stays as it is until the push is answered."""

    def hear(self) -> Told:
        """Wait for the next message; Closed if none will come."""

    def has_news(self) -> bool:
        """Whether `hear` would not wait."""

    def progress(self) -> None:
        """Between two minibatches: move on what is under way, without waiting for anything."""

    def flush(self) -> None:
        """Wait until all that was sent has left."""

    def center(self, grant: Grant) -> Tensor:
        """(P,) the version that was granted; read only, and only until the next grant's."""

    def close(self) -> None:
        """Give back what it holds."""


class ServerEnd(Protocol):
    """The server's end: all workers, and the supervisor as SUPERVISOR."""

    clock: int  # 0 if all senders share the server's clock; else times of theirs say nothing of the order
    memory: Memory

    def hear(self, patience_s: float | None) -> list[Heard]:
        """What has come, waiting for it so long (None: any time).

        In the order of sending where all share a clock, else in that of arrival; the supervisor's words come last.
        """

    def tell(self, worker: int, message: ToWorker, waited_ns: int = 0, released_ns: int = 0) -> None:
        """Send a message; nothing if the worker has none to hear it."""

    def report(self, sign: Sign, worker: int) -> None:
        """Tell the supervisor."""


class Switchboard(Protocol):
    """The supervisor's side: it connects workers and server, and outlives both."""

    def connecting_server(self) -> AbstractContextManager[Any]:
        """What a new server process is given, which is started inside."""

    def connecting_worker(self, worker: int) -> AbstractContextManager[Any]:
        """What a worker's new process is given, which is started inside; then the server learns of it."""

    def stop(self) -> None:
        """Ask the server for the end of the run."""

    def waitable(self) -> Sequence[Any]:
        """What `multiprocessing.connection.wait` waits for: it is ready when there is a report."""

    def heard(self, ready: Sequence[Any]) -> tuple[Sign, int] | None:
        """A report of the server, if one is among what is ready."""

    def disconnect_server(self) -> None:
        """The server is dead."""

    def disconnect_workers(self) -> None:
        """Nobody will answer them any more."""


class Transport(Memory, Protocol):
    """One run's; it goes to the run's processes as an argument, and each takes its end there."""

    words: Words

    def tensors(self) -> dict[str, Tensor]:
        """The data set, read only."""

    def worker_end(
        self, worker: int, place: Any, staged: torch.device | None = None, overlaps: bool = False
    ) -> WorkerEnd:
        """In the worker's process; its vectors are `staged` to and from that device, beside minibatches if it
        `overlaps`.
        """

    def server_end(self, place: Any, precise: bool = False) -> ServerEnd:
        """In the server's process; a `precise` one is woken when its patience ends, not up to a millisecond later."""

    def switchboard(self) -> Switchboard:
        """In the program that supervises the run."""

    def close(self) -> None:
        """Give back what the program holds."""
