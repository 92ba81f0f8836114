"""The server's state of each member, its objections to requests, its kept pushes, and the budget that ends a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.messages import ALL, FetchRequest, PushRequest


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """The end of a run after `patience` windows of pushes without an improvement by more than `min_delta`."""

    of_error: bool  # instead of the loss
    patience: int
    min_delta: float


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of a run that the server checks (the backend checks the clock, and then closes the server)."""

    minibatches: int | None = None  # over all workers, exactly
    updates: int | None = None  # versions
    target_error: float | None = None  # for the training error in the pushes,
    target_loss: float | None = None  # for the training loss in them,
    target_window: int = 50  # both averaged over at least so many minibatches
    early_stop: EarlyStop | None = None  # by the mean of each such window


_EMPTY: list[int] = []  # one for all members of an undivided vector


@dataclass(slots=True, eq=False)
class Member:
    """A worker that has joined and not left, as the server and its gate see it; a gate reads it and changes nothing.

    `incarnation`: its life, from 1. `sequence`: its pushes, and `taken`: the minibatches that it pushed or wasted, both
    over all its lives. `clock`: the rounds that it pushed; a new member starts at the slowest member's. `owed`: the
    minibatches leased to it and not pushed. `fetches`: its fetches in this life. `fetching`: whether it waits for a
    lease.

    Of its last lease, `lease` is the number of the fetch, `lease_version` the version, `lease_steps` the minibatches,
    `lease_ns` the time of the grant on the run's clock, and `trials` counts the leases from that version, this one
    included. `stopped`: the number of the last lease that was stopped. Of its last push, `round_steps` are the
    minibatches, and `round_ns` is the time since the lease.
    """

    incarnation: int
    sequence: int
    taken: int
    clock: int
    owed: int = 0
    allotted: int = 0  # of a round: granted by the next fetch
    fetches: int = 0
    fetching: bool = False
    lease: int = 0
    lease_version: int = 0
    lease_steps: int = 0
    lease_ns: int = 0
    trials: int = 0
    stopped: int = 0
    round_steps: int = 0
    round_ns: int = 0
    # With several parts:
    pushed: list[int] = field(
        default_factory=lambda: _EMPTY
    )  # minibatches that each part has been pushed with, in this life
    numbers: list[int] = field(default_factory=lambda: _EMPTY)  # the last push of each part
    first_applied: int = 0  # the last push of which the first part is in a version

    @property
    def speed(self) -> float:
        """Minibatches a second of its last round, as the server saw it; 0 before its first push or without a clock."""
        return self.round_steps / self.round_ns * 1e9 if self.round_ns else 0.0


class Clocks:
    """The rounds that each member has pushed, and the fewest."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.slowest = 0

    def move(self, old: int | None, new: int | None) -> None:
        """Change a member's count; None: before it joins, or after it has left."""
        counts = self._counts
        if new is not None:
            counts[new] += 1
        if old is not None:
            counts[old] -= 1
            if not counts[old]:
                del counts[old]
        if counts and (self.slowest not in counts or (new is not None and new < self.slowest)):
            self.slowest = min(counts)

    @property
    def first(self) -> int:
        """The first count of a new member."""
        return self.slowest if self._counts else 0


class Kept:
    """The pushes that wait to be merged: held in their worker's mailbox (the worker waits), or kept in a copy."""

    IN_MAILBOX = -1  # in place of the number of a copy

    def __init__(self, copies: int) -> None:
        self._most = copies
        self.entries: dict[tuple[int, int], tuple[PushRequest, int, int]] = {}  # by worker and number

    def pushes(self) -> list[PushRequest]:
        """The pushes in order of arrival."""
        return [push for push, _, _ in self.entries.values()]

    def holds(self, worker: int) -> bool:
        """Whether a push of this worker, of any incarnation, is held in its mailbox."""
        return any(whose == worker and copy == self.IN_MAILBOX for (whose, _), (_, _, copy) in self.entries.items())

    def hold(self, push: PushRequest, count: int) -> None:
        """Hold the push in its mailbox, with its count of minibatches."""
        self.entries[push.worker, push.number] = push, count, self.IN_MAILBOX

    def copy(self, push: PushRequest, count: int) -> int:
        """Keep the push in a copy, with its count of minibatches; return the number of a free copy."""
        taken = {copy for _, _, copy in self.entries.values()}
        number = next(number for number in range(len(self.entries) + 1) if number not in taken)
        if number >= self._most:
            raise ProtocolError(f"the gate keeps {number + 1} pushes, and says that it keeps {self._most} at most")
        self.entries[push.worker, push.number] = push, count, number
        return number

    def sorted(self) -> list[tuple[PushRequest, int, int]]:
        """The pushes by worker and number, with their counts and the numbers of their copies."""
        return [self.entries[key] for key in sorted(self.entries)]

    def clear(self) -> None:
        self.entries.clear()


def objection_to_fetch(member: Member, request: FetchRequest) -> str:
    """The fault of a refused fetch."""
    worker, incarnation, number = request[:3]
    if incarnation != member.incarnation:
        return f"worker {worker} fetches as incarnation {incarnation}, not {member.incarnation}"
    if member.fetching and request.lease:
        return f"worker {worker} fetches while it waits for an answer"
    if number != member.fetches + 1 and not member.numbers:
        return f"worker {worker} sends fetch {number}, not {member.fetches + 1}"
    return f"worker {worker} fetches ahead, and this gate holds workers back"


def objection_to_push(member: Member, push: PushRequest, version: int, held: bool) -> str:
    """The fault of a refused push, with `version` the newest, and a push of the worker `held` or not."""
    worker, incarnation, number, base, steps = push[:5]
    if incarnation != member.incarnation:
        return f"worker {worker} pushes as incarnation {incarnation}, not {member.incarnation}"
    if member.fetching or held:
        return f"worker {worker} pushes while it waits for an answer"
    last = member.numbers[push.part] if member.numbers else member.sequence
    if number != last + 1 if push.part == ALL else number <= last:
        return f"worker {worker} sends push {number}, not {last + 1}"
    owed = member.owed - push.returned
    if member.numbers:
        owed += min(member.pushed) - member.pushed[push.part]
    if not 0 < steps <= owed:
        return f"worker {worker} pushes {steps} minibatches and owes {owed}"
    return f"worker {worker} pushes work on version {base} of {version}"
