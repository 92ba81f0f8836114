"""Gates: who may fetch, what becomes of a push, how much work a lease carries, and who is stopped.

A gate holds no state and no clock. It is asked, and answers from what it sees of the server (`View`): so a run's course
is a function of what its server heard, and when. The server does the waiting, the merging and the releasing.

A gate promises progress, or the server cannot: where all members wait and something is kept, the server merges it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol, dataclass_transform

from asgd_lab.protocol.members import Member
from asgd_lab.protocol.messages import PushRequest, Reason


class View(Protocol):
    """What a gate sees of the server."""

    version: int
    now_ns: int  # of the run's clock, when the message was heard that is being answered
    n_fetch: int  # minibatches that a lease carries by default

    @property
    def members(self) -> Collection[int]:
        """The workers that are in."""

    @property
    def kept(self) -> Sequence[PushRequest]:
        """The pushes that wait to be merged, in order of arrival."""

    @property
    def slowest(self) -> int:
        """The rounds that the slowest member has pushed; counted for gates that hold workers back."""

    @property
    def owing(self) -> Collection[int]:
        """The members that have been leased minibatches and have not pushed them all."""

    def member(self, worker: int) -> Member:
        """What the server keeps of a member."""


class Action(IntEnum):
    """What becomes of a push."""

    APPLY = 0  # it makes a version at once
    HOLD = 1  # it is merged later, and its worker waits until then
    KEEP = 2  # it is merged later, and its worker goes on: the server takes a copy
    DROP = 3


class Verdict(NamedTuple):
    """An action, and of a drop the reason and whether its minibatches are to be leased again."""

    action: Action
    reason: Reason = Reason.NONE
    returns: bool = True


APPLY, HOLD, KEEP = (Verdict(action) for action in (Action.APPLY, Action.HOLD, Action.KEEP))


def drop(reason: Reason = Reason.OTHER, returns: bool = True) -> Verdict:
    """The push makes no version; `returns`: its minibatches go back to the budget."""
    return Verdict(Action.DROP, reason, returns)


@dataclass_transform(frozen_default=True)
class Gate:
    """Nobody waits for anybody, and each push makes a version. A subclass says what is different.

    A subclass is a frozen dataclass, without a decorator: the fields that it names are what it is made with.
    """

    holds_back = False
    """Whether a fetch may have to wait for other workers; then none is asked ahead of its need."""
    collects = False
    """Whether a version may be made of several pushes."""
    keeps = 0
    """How many pushes it may keep whose workers go on: so many copies the server makes room for."""
    rounds = False
    """Whether minibatches are leased in rounds, to all members together, when the first of them asks for more."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    def may_fetch(self, worker: int, server: View) -> bool:
        """Whether this fetch is granted now; asked again after whatever happens."""
        return True

    def lease(self, worker: int, server: View) -> int:
        """The minibatches that a granted fetch carries, at least 1; the budget may allow fewer."""
        return server.n_fetch

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        """What becomes of a push that has arrived."""
        return APPLY

    def complete(self, server: View) -> bool:
        """Whether the pushes that are kept make a version now; asked after whatever happens while there are any."""
        return False

    def stops(self, server: View) -> Iterable[int]:
        """The workers whose lease is over now; asked after each version, and when the server is woken."""
        return ()

    def wake_ns(self, server: View) -> int | None:
        """When, of the run's clock, the server is to be woken; None: not at all. Asked after whatever happens."""
        return None


class Asynchronous(Gate):
    """Nobody waits for anybody."""


class BoundedStaleness(Gate):
    """Stale synchronous parallel (Ho et al. 2013): nobody starts a round while more than `bound` rounds ahead.

    Rounds are counted at the fetch, so the clocks of fastest and slowest never differ by more than bound + 1 pushes,
    and bound 0 lets nobody start round r + 1 before all have pushed round r.
    """

    bound: int
    holds_back = True

    def may_fetch(self, worker: int, server: View) -> bool:
        """Is it no further ahead than that?"""
        return server.member(worker).clock - server.slowest <= self.bound


class LockStep(Gate):
    """Bulk-synchronous: the pushes of a round make one version together, and all go on from it."""

    holds_back = collects = rounds = True

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        """It waits for the others of its round."""
        return HOLD

    def complete(self, server: View) -> bool:
        """Has everybody pushed?"""
        return not server.owing


asynchronous, bounded_staleness, lock_step = Asynchronous, BoundedStaleness, LockStep
