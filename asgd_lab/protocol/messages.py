"""The messages of the protocol: the only types that travel between workers and server, and that the event log holds.

A message is made once, by its sender, and the same object goes through the carrier to the server and into the log. No
message holds a vector: updates and centers are in buffers, which messages name. Nor do messages hold times; the carrier
knows when it sent and heard them.

A *lease* is a number of minibatches that a worker may take; it comes with a fetch, or alone, and has that request's
number. `part` names a span of the parameters with versions of its own. An undivided vector has messages for `ALL` of
the vector; if the vector is divided, each message is of one part, and those of one push have the same number.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

new = tuple.__new__
"""`new(Ack, (worker, ...))`, with all fields in order, takes a third of the time of `Ack(worker, ...)`: for the four
messages of every round."""

ALL = -1  # in place of a part: the whole vector
NO_PART = -2  # in place of a part: a lease alone
NOWHERE = -1  # in place of a slot: a grant without parameters
DROPPED = -1  # in place of a version: the push went into none
KEPT = -2  # in place of a version: the push is merged later, and its worker continues; another Ack ends it


class Why(IntEnum):
    """The reason for a worker's leave, or for the end of a run; for readers of a record; STUCK alone has an effect."""

    DONE = 0  # its program has ended; the budget is used up
    DIED = 1
    SILENT = 2  # it gave no sign of life for too long
    NOT_FINITE = 3  # its loss was not finite
    STOPPED = 4  # by the run's clock, or by its user
    STUCK = 5  # all members wait, and nothing can come any more


class Reason(IntEnum):
    """The reason for a dropped push."""

    NONE = 0  # it was not dropped
    OVER = 1  # the run was closed before it could be applied
    STALE = 2  # too many versions were made since its center was fetched
    LATE = 3  # its round was complete without it
    OTHER = 4


# ---------------------------------------------------------------------- from a worker to the server


class Join(NamedTuple):
    """A worker begins a life, as a new incarnation if it was a member before."""

    worker: int
    life: int = 0  # a unique number of the life, to distinguish a resent request from a new one


class Leave(NamedTuple):
    """A worker's life has ended, by its own message or by its death."""

    worker: int
    incarnation: int
    why: int = Why.DONE


class FetchRequest(NamedTuple):
    """A worker asks for parameters, for minibatches to take, or for both."""

    worker: int
    incarnation: int
    number: int  # of this life's fetches, from 1
    ahead: bool = False  # asked while it still trains: answered at once, with 0 minibatches if none is left
    part: int = ALL
    lease: bool = True  # are minibatches asked for?
    stopped: int = 0  # the number of the lease that was stopped since its last message; 0: none
    wasted: int = 0  # minibatches that it had taken, and not pushed to all parts, when it heard the stop
    returned: int = 0  # minibatches of the lease that will not be pushed to all parts, the wasted ones included


class PushRequest(NamedTuple):
    """An update without its vector, which is in the worker's mailbox."""

    worker: int
    incarnation: int
    number: int  # of the worker's pushes, over all its incarnations, from 1
    base: int  # version of the oldest center that contributed
    steps: int  # minibatches in it; they are counted once, when all parts have been pushed with them
    loss: float  # means over those minibatches, as the replica saw them before each step
    error: float
    buffer: int = 0  # the mailbox that holds the update
    part: int = ALL
    size_bytes: int = 0  # of the update on the wire
    stopped: int = 0  # as in FetchRequest
    wasted: int = 0
    returned: int = 0


# ---------------------------------------------------------------------- from outside to the server


class Close(NamedTuple):
    """The run is over."""

    why: int = Why.DONE


class Wake(NamedTuple):
    """The time that the server asked to be woken at has come."""


# ---------------------------------------------------------------------- from the server to a worker


class Grant(NamedTuple):
    """The answer to a fetch: the worker may read `version`, and take `steps` minibatches if it asked for them.

    If it asked and gets none, it pushes its remaining work, or leaves.
    """

    worker: int
    incarnation: int
    number: int  # of the fetch
    version: int
    steps: int
    slot: int = NOWHERE  # the buffer that holds the version
    part: int = ALL


class Ack(NamedTuple):
    """A push has ended, or is kept; its mailbox may be rewritten."""

    worker: int
    incarnation: int
    number: int  # of the push
    version: int  # the one it went into, or DROPPED, or KEPT
    staleness: int  # versions made between the fetch of its oldest center and its application or drop
    steps: int  # minibatches that are counted with it
    reason: int = Reason.NONE
    part: int = ALL


class Stop(NamedTuple):
    """A lease is over: its worker stops within one minibatch, and work that it has not pushed is void, part by part.

    A minibatch that was pushed to some parts alone is wasted too: it stays in their versions, and is leased again.
    """

    worker: int
    incarnation: int
    number: int  # of the fetch that the lease came with


Request = FetchRequest | PushRequest
Message = Join | Leave | FetchRequest | PushRequest | Close | Wake
Answer = Grant | Ack | Stop
