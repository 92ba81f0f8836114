"""Gates decide whether a fetch is granted, the fate of a push, the size of a lease, and stops of leases.

A gate has no state and no clock. It answers from its `View` of the server: so a run is a function of the messages that
its server heard, and of their times. The server does the waiting, the merging and the releasing.

A gate must promise progress; only if all members wait and pushes are kept, the server merges them by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol, dataclass_transform

from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.members import Member
from asgd_lab.protocol.messages import PushRequest, Reason


class View(Protocol):
    """The server as a gate sees it; of a divided vector: the part that it is asked about."""

    part: int  # ALL if the vector is undivided
    version: int
    version_ns: int  # when the newest version was made, on the run's clock

    @property
    def now_ns(self) -> int:
        """The time on the run's clock at which the current message was heard."""

    @property
    def n_fetch(self) -> int:
        """The default minibatches of a lease."""

    @property
    def members(self) -> Collection[int]:
        """The workers that have joined and not left."""

    @property
    def kept(self) -> Sequence[PushRequest]:
        """The pushes that wait to be merged, in order of arrival."""

    @property
    def slowest(self) -> int:
        """The rounds that the slowest member has pushed; counted for gates that hold workers back."""

    @property
    def owing(self) -> Collection[int]:
        """The members that have not pushed all minibatches leased to them."""

    def member(self, worker: int) -> Member:
        """The server's state of a member."""


class Action(IntEnum):
    """The fate of a push."""

    APPLY = 0  # it makes a version at once
    HOLD = 1  # it is merged later, and its worker waits until then
    KEEP = 2  # it is merged later, and its worker continues: the server takes a copy
    DROP = 3


class Verdict(NamedTuple):
    """An action; for a drop also the reason, and whether its minibatches are leased again."""

    action: Action
    reason: Reason = Reason.NONE
    returns: bool = True


APPLY, HOLD, KEEP = (Verdict(action) for action in (Action.APPLY, Action.HOLD, Action.KEEP))


def drop(reason: Reason = Reason.OTHER, returns: bool = True) -> Verdict:
    """A drop: the push is in no version; with `returns`, its minibatches go back to the budget."""
    return Verdict(Action.DROP, reason, returns)


@dataclass_transform(frozen_default=True)
class Gate:
    """No worker waits for another, and each push makes a version. Subclasses override methods.

    A subclass is a frozen dataclass without a decorator: its annotated fields are its constructor's arguments. Its
    facts are `holds_back`, `collects`, `keeps`, `rounds` and `needs_clock`; `Member` has the books on a worker.
    """

    holds_back = False
    """Whether a fetch may have to wait for other workers; then no fetch may ask ahead."""
    collects = False
    """Whether a version may be made from several pushes: whether it holds or keeps any."""
    keeps = 0
    """The most pushes that it keeps at once while their workers continue: the server has as many copies."""
    rounds = False
    """Whether minibatches are leased in rounds, to all members together, at the first fetch of a round."""
    needs_clock = False
    """Whether it reads times or speeds: without a clock, as inline, all are 0, and the run warns."""

    def __init_subclass__(cls) -> None:
        for name in inspect.get_annotations(cls):  # a value of this class is no default of a field there
            if name not in cls.__dict__:
                setattr(cls, name, field())
        dataclass(frozen=True)(cls)

    def may_fetch(self, worker: int, server: View) -> bool:
        """Whether this fetch is granted now; called again after every message."""
        return True

    def lease(self, worker: int, server: View) -> int:
        """The minibatches of the lease for a granted fetch, at least 1; the budget may allow fewer."""
        return server.n_fetch

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        """The fate of a push that has arrived."""
        return APPLY

    def complete(self, server: View) -> bool:
        """Whether the held and kept pushes make a version now; called after every message while there are any."""
        return False

    def stops(self, server: View) -> Iterable[int]:
        """The workers to stop now; called after each version, and when the server is woken.

        In each part, work that has not been pushed to it is void. The minibatches of the lease that have not been
        pushed to all parts are leased again.
        """
        return ()

    def wake_ns(self, server: View) -> int | None:
        """The next time on the run's clock to wake the server at; None: never. Called after every message.

        A time for which the gate has been asked already is ignored, so a stopped lease should not be named again.
        """
        return None


def check(gate: Gate) -> None:
    """A `ScenarioError` if a fact of the gate is of another kind, or contradicts another fact."""
    for name in ("holds_back", "collects", "rounds", "needs_clock"):
        if not isinstance(getattr(gate, name), bool):
            raise ScenarioError(f"{name} of {gate!r} must be True or False; got {getattr(gate, name)!r}")
    if type(gate.keeps) is not int or gate.keeps < 0:
        raise ScenarioError(f"keeps of {gate!r} must be a whole number, 0 at least; got {gate.keeps!r}")
    if gate.keeps and not gate.collects:
        raise ScenarioError(f"{gate!r} keeps pushes, so its class must say: collects = True")
    if gate.rounds and not gate.holds_back:
        raise ScenarioError(
            f"{gate!r} leases in rounds, which fetches wait for, so its class must say: holds_back = True"
        )


class Asynchronous(Gate):
    """No worker waits for another."""


class BoundedStaleness(Gate):
    """Stale synchronous parallel (Ho et al. 2013): no worker starts a round while more than `bound` rounds ahead.

    Rounds are counted at the fetch, so the clocks of fastest and slowest never differ by more than bound + 1 pushes;
    with bound 0, no worker starts round r + 1 before all have pushed round r.
    """

    bound: int
    holds_back = True

    def may_fetch(self, worker: int, server: View) -> bool:
        return server.member(worker).clock - server.slowest <= self.bound


class LockStep(Gate):
    """Bulk-synchronous: the pushes of a round make one version together, and all workers continue from it."""

    holds_back = collects = rounds = True

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        return HOLD

    def complete(self, server: View) -> bool:
        return not server.owing


asynchronous, bounded_staleness, lock_step = Asynchronous, BoundedStaleness, LockStep
