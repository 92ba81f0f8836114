"""Effects: the requests of a worker program to its backend. A program only yields them; a backend carries them out."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from asgd_lab.protocol.replica import Replica


@dataclass(frozen=True, slots=True, eq=False)
class Fetch:
    """Ask the server for its parameters; done when `replica.center` holds one version of them.

    The grant sets `replica.version` and `replica.granted`, the minibatches until the next fetch; 0 means that no work
    is left.
    """

    replica: Replica


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
