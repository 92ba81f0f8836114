"""Effects: the requests of a worker program to its backend. A program only yields them; a backend carries them out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from asgd_lab.protocol.messages import ALL, NO_PART
from asgd_lab.protocol.replica import Replica

FETCH = -1  # the exchange of a fetch of the whole vector
MOST_BUFFERS = 2**20  # the first number of an exchange that is a push of one part


def exchange_of(is_fetch: bool, part: int, buffer: int = 0) -> int:
    """The number of an exchange, of which a worker has at most one under way: FETCH, or the buffer of a push.

    A lease alone, and a fetch or a push of one part, have other numbers; those of fetches and leases are below 0.
    """
    if is_fetch:
        return part if part < 0 else NO_PART - 1 - part
    return buffer if part == ALL else buffer + MOST_BUFFERS * (part + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Fetch:
    """Ask the server for its parameters; done when `replica.center` holds one version of them.

    The grant sets `replica.version` and `replica.granted`, the minibatches until the next fetch; 0 means that no work
    is left. A fetch of one `part`, or without a `lease`, leaves everything else as it is.
    """

    replica: Replica
    part: int = ALL
    lease: bool = True
    exchange: int = field(init=False)

    def __post_init__(self) -> None:
        if self.part >= 0:
            self.replica.place_in(self.part)
        object.__setattr__(self, "exchange", exchange_of(True, self.part))


def lease(replica: Replica) -> Fetch:
    """Ask the server for minibatches alone; they are added to `replica.granted`, and 0 means that none is left."""
    return Fetch(replica, NO_PART)


@dataclass(frozen=True, slots=True, eq=False)
class Train:
    """Take `replica.steps` minibatches of the local optimizer, in place on the replica's parameters."""

    replica: Replica


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """Send the update to the server; done when the update's buffer may be rewritten (as in MPI).

    A program whose next effect is always a fetch names it in `then`: a carrier may send both requests together.
    """

    replica: Replica
    buffer: int = 0  # the index of the replica's update
    then: Fetch | None = None
    part: int = ALL
    exchange: int = field(init=False)

    def __post_init__(self) -> None:
        if self.part >= 0:
            self.replica.place_in(self.part)
        object.__setattr__(self, "exchange", exchange_of(False, self.part, self.buffer))


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Begin `effect` without waiting for it: communication that overlaps with training.

    A started fetch asks ahead: if the whole budget is leased, it is answered at once with 0 minibatches, instead of
    waiting for work that a dead worker might give back. Neither it nor a push from the same buffer may be started again
    before a `Wait` for it.
    """

    effect: Fetch | Push


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """Wait until a started `effect` is done; at once if none is in flight. A fetch's grant takes effect here."""

    effect: Fetch | Push


Effect = Fetch | Train | Push | Start | Wait
Program = Generator[Effect, None, None]
