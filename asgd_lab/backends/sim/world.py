"""The interface of a run for its workers and exchanges; they know nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol

from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.machine import Machine
from asgd_lab.backends.sim.numerics import Batched, Sequential
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.rows import Rows
from asgd_lab.protocol.messages import Grant, Leave
from asgd_lab.protocol.replica import Replica
from asgd_lab.tasks.base import Learner


class Served(NamedTuple):
    """Calls of a run, made once for all exchanges."""

    push: Callable[[Push], object]
    """A push has had its service: it is applied, or collected."""
    fetch: Callable[[Fetch], object]
    """A fetch has had its service: it is granted, or held back."""


class World(Protocol):
    """A run as its workers see it."""

    @property
    def machine(self) -> Machine:
        """The clock, processors and network."""

    @property
    def rows(self) -> Rows:
        """The tables that workers write into."""

    @property
    def stops(self) -> bool:
        """Whether the server may stop a worker during its minibatches."""

    @property
    def numerics(self) -> Sequential | Batched | None:
        """The computation of minibatches; None if they only take time."""

    @property
    def served(self) -> Served:
        """The calls of exchanges that have been served."""

    def granted(self, replica: Replica, grant: Grant) -> None:
        """A fetch was granted parameters: point the replica at the version, which is pinned until the next grant."""

    def trained(self, replica: Replica, learner: Learner) -> None:
        """A worker has taken its minibatches."""

    def leave(self, leave: Leave) -> None:
        """The program of a worker has ended."""

    def fail(self, failure: str) -> NoReturn:
        """Fail the run, for this reason."""
