"""Effects: what a worker program wants to happen. A program only names them; each backend gives them their meaning."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from asgd_lab.protocol.replica import Replica


@dataclass(frozen=True, slots=True, eq=False)
class Fetch:
    """Ask the server for its parameters; done when `replica.center` holds one version of them.

    The grant sets `replica.version` and `replica.granted`, the minibatches until the next fetch; 0 means that there
    is nothing more to do.
    """

    replica: Replica


@dataclass(frozen=True, slots=True, eq=False)
class Train:
    """Take `replica.steps` minibatches of the local optimizer, in place on the replica's parameters."""

    replica: Replica


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """Hand the update to the server; done when the update's buffer may be rewritten (as MPI means it).

    A program that always fetches next says so by `then`: a carrier may send both requests together.
    """

    replica: Replica
    buffer: int = 0  # which of the replica's updates
    then: Fetch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Begin `effect` without waiting for it: communication that overlaps with training.

    A started fetch asks ahead: where the budget is all granted it is answered at once, with 0 minibatches, and does not
    wait for what falls back. Until it is waited for, neither it nor a push from the same buffer may be started again.
    """

    effect: Fetch | Push


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """Wait until a started `effect` is done; at once where none is under way. A fetch's grant takes effect here."""

    effect: Fetch | Push


Effect = Fetch | Train | Push | Start | Wait
Program = Generator[Effect, None, None]
