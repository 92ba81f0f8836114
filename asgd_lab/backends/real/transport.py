"""The transport: the few calls that carry messages and vectors between a real run's workers, server and supervisor.

The loops of worker, server and supervisor, checkpoints and failure detection are written once, over these calls; a file
of `transports/` implements them. No socket, no descriptor and no shared memory is named outside of it.

Every end reports a death on its other side: messages of one worker arrive in the order of sending, and then `None`. A
new server announces itself to each worker (`NewServer`); the worker answers `Resending`, and resends its unanswered
requests. So a request may come twice, with the same number, and none is lost with a server.

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

SUPERVISOR = -1  # in place of a worker: the supervisor, which started the server


class Closed(Exception):
    """The run is over for this worker: no message will be heard or answered any more."""


# ---------------------------------------------------------------------- messages of real runs alone


class Saved(NamedTuple):
    """From a worker: its part of a checkpoint is written."""

    worker: int
    incarnation: int
    checkpoint: int
    told: int  # the number of the Save


class Resending(NamedTuple):
    """From a worker: its unanswered requests follow again."""

    worker: int


class Connected(NamedTuple):
    """From the supervisor: the worker has a new process."""

    worker: int


class Welcome(NamedTuple):
    """To a worker: its life has begun, with these counts so far."""

    worker: int
    incarnation: int
    life: int
    pushes: int
    minibatches: int
    fetches: int
    start_ns: int  # the start of the run's clock


class Save(NamedTuple):
    """To a worker: write your part of a checkpoint as soon as you wait for a fetch alone."""

    worker: int
    incarnation: int
    checkpoint: int
    told: int  # the number of this Save


class NewServer(NamedTuple):
    """To a worker: the sender is a new server, which has heard nothing from it."""


class Failed(NamedTuple):
    """To a worker: it was failed, and this life of it is over."""

    worker: int
    incarnation: int


FromWorker = Join | Attach | Leave | FetchRequest | PushRequest | Saved | Resending
ToWorker = Grant | Ack | Stop | Welcome | Save | NewServer | Failed


class Sign(IntEnum):
    """The server's report on a worker to the supervisor."""

    SILENT = 0  # it gives no sign of life, and is failed
    AWAKE = 1  # it begins a life


class Heard(NamedTuple):
    """A message from a worker or from the supervisor; None: the sender is dead."""

    sender: int
    message: FromWorker | Close | Connected | None
    sent_ns: int = 0  # the time of sending (emulated: of arrival), on the sender's clock
    received_ns: int = 0  # at which the sender received its last answer before this message
    heard_ns: int = 0  # the time of hearing


Told = tuple[ToWorker, int, int]
"""A message to a worker; the wait of its request, from sending to its service or to its release by a gate; and the time
at which the answer was sent. Times are in nanoseconds.
"""


# ---------------------------------------------------------------------- the ends


class Memory(Protocol):
    """The memory of a server's vectors."""

    def slot(self, index: int, writable: bool = False) -> Tensor:
        """(P,) a buffer for versions; slot 0 holds the initial one."""

    def state(self, index: int) -> Tensor:
        """(P,) a buffer for a state vector of the rule; there are two of each."""

    def scalar(self, index: int) -> Tensor:
        """() float64, a state scalar of the rule; there are two of each."""

    def copy(self, index: int) -> Tensor:
        """(P,) a buffer for an update that the server keeps while its worker continues."""

    def mailbox(self, worker: int, buffer: int, writable: bool = False) -> Tensor:
        """(P,) the update of a push from this buffer, once the push is heard; its worker writes it."""


class WorkerEnd(Protocol):
    """A worker's end, used by one thread."""

    def begin(self) -> None:
        """Begin a new life: no message of an earlier one is sent or heard any more."""

    def update(self, buffer: int) -> Tensor:
        """(P,) memory for the updates of pushes from this buffer."""

    def send(
        self, message: FromWorker, sent_ns: int = 0, received_ns: int = 0, behind: FromWorker | None = None
    ) -> None:
        """Send a message; Closed if the run is over. A push's update must not change before the push is answered.

        The server hears a second message `behind` it together with it, so that no other worker's comes between.
        """

    def hear(self) -> Told:
        """Wait for the next message; Closed if none will come."""

    def has_news(self) -> bool:
        """Whether `hear` would return at once."""

    def progress(self) -> None:
        """Called between two minibatches: advance transfers in flight, without waiting."""

    def flush(self) -> None:
        """Wait until all messages have left."""

    def center(self, grant: Grant) -> Tensor:
        """(P,) the granted version; read only, and valid until the next grant's."""

    def close(self) -> None:
        """Release its resources."""


class ServerEnd(Protocol):
    """The server's end: all workers, and the supervisor as SUPERVISOR."""

    clock: int  # 0 if all senders share the server's clock; else their times give no order
    memory: Memory

    def hear(self, patience_s: float | None) -> list[Heard]:
        """The messages that have come, after a wait of at most so long (None: any time).

        They are in the order of sending if all senders share a clock, else of arrival; the supervisor's are last.
        """

    def tell(self, worker: int, message: ToWorker, waited_ns: int = 0, released_ns: int = 0) -> None:
        """Send a message; no effect if the worker has no process."""

    def report(self, sign: Sign, worker: int) -> None:
        """Send a report to the supervisor."""


class Switchboard(Protocol):
    """The supervisor's side: it connects workers and server, and outlives both."""

    def connecting_server(self) -> AbstractContextManager[Any]:
        """The argument of a new server process, to be started inside."""

    def connecting_worker(self, worker: int) -> AbstractContextManager[Any]:
        """The argument of a worker's new process, to be started inside; the server is told afterwards."""

    def stop(self) -> None:
        """Ask the server for the end of the run."""

    def waitable(self) -> Sequence[Any]:
        """An object for `multiprocessing.connection.wait`, ready when there is a report."""

    def heard(self, ready: Sequence[Any]) -> tuple[Sign, int] | None:
        """A report of the server, if there is one among the ready objects."""

    def disconnect_server(self) -> None:
        """Close the connection to a dead server."""

    def disconnect_workers(self) -> None:
        """Close the connections of the workers, which will get no more answers."""


class Transport(Memory, Protocol):
    """The transport of one run, an argument of the run's processes; each takes its end in its own process."""

    words: Words

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the data set, read only."""

    def worker_end(
        self, worker: int, place: Any, staged: torch.device | None = None, overlaps: bool = False
    ) -> WorkerEnd:
        """A worker's end, in its process; vectors are `staged` to and from that device, beside minibatches if it
        `overlaps`.
        """

    def server_end(self, place: Any, precise: bool = False) -> ServerEnd:
        """The server's end, in its process; a `precise` one wakes on time, not up to a millisecond later."""

    def switchboard(self) -> Switchboard:
        """The supervisor's side, in the program."""

    def close(self) -> None:
        """Release the program's resources."""
