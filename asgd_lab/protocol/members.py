"""What the server keeps of each member, and what it objects to in a request; and the budget that ends a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.messages import FetchRequest, PushRequest


@dataclass(frozen=True, slots=True)
class Budget:
    """What ends a run, as far as the server can see it (a clock's budget is the backend's, which then closes)."""

    minibatches: int | None = None  # over all workers, exactly
    updates: int | None = None  # versions
    target_error: float | None = None  # of the training error that comes with the pushes,
    target_window: int = 50  # averaged over at least so many minibatches


@dataclass(slots=True, eq=False)
class Member:
    """A worker that is in."""

    incarnation: int
    sequence: int  # of its last push; incarnations go on counting
    taken: int  # minibatches that it has pushed or taken in vain, likewise
    clock: int  # rounds pushed; a joiner starts at the slowest member's
    owed: int = 0  # minibatches granted or allotted and not pushed yet
    allotted: int = 0  # of a collecting round: granted by the next fetch
    fetches: int = 0  # of this life
    fetching: bool = False  # does a fetch of it wait to be granted?
    pushing: bool = False  # does it wait for a push of it to be merged?
    lease: int = 0  # the number of the fetch that its last minibatches were leased with
    lease_version: int = 0  # the version that it was granted then,
    lease_steps: int = 0  # how many minibatches,
    lease_ns: int = 0  # and when
    stopped: int = 0  # the last lease that it was told is over
    round_steps: int = 0  # minibatches of its last push,
    round_ns: int = 0  # and the time from its lease to that push

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
        """A member's count has changed; None: it is not in, or no more."""
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
        """The count that a joiner starts with."""
        return self.slowest if self._counts else 0


class Kept:
    """The pushes that wait to be merged: in their worker's mailbox, which then waits, or in a copy."""

    IN_MAILBOX = -1  # in place of the number of a copy

    def __init__(self, copies: int) -> None:
        self._most = copies
        self._pushes: dict[tuple[int, int], tuple[PushRequest, int]] = {}  # by worker and number

    def __len__(self) -> int:
        return len(self._pushes)

    def pushes(self) -> list[PushRequest]:
        """In order of arrival."""
        return [push for push, _ in self._pushes.values()]

    def holds(self, worker: int) -> bool:
        """Whether a push of this worker, or of its earlier incarnation, lies in its mailbox."""
        return any(whose == worker and copy == self.IN_MAILBOX for (whose, _), (_, copy) in self._pushes.items())

    def hold(self, push: PushRequest) -> None:
        """Keep it in its mailbox."""
        self._pushes[push.worker, push.number] = push, self.IN_MAILBOX

    def copy(self, push: PushRequest) -> int:
        """Keep it in a copy; the number of a copy that is free."""
        taken = {copy for _, copy in self._pushes.values()}
        number = next(number for number in range(len(self._pushes) + 1) if number not in taken)
        if number >= self._most:
            raise ProtocolError(f"the gate keeps {number + 1} pushes, and says that it keeps {self._most} at most")
        self._pushes[push.worker, push.number] = push, number
        return number

    def sorted(self) -> list[tuple[PushRequest, int]]:
        """In the order of workers and of their pushes, with the numbers of copies."""
        return [self._pushes[key] for key in sorted(self._pushes)]

    def clear(self) -> None:
        """Nothing is kept any more."""
        self._pushes.clear()


def objection_to_fetch(member: Member, request: FetchRequest) -> str:
    """What is wrong with a fetch that is refused."""
    worker, incarnation, number = request[:3]
    if incarnation != member.incarnation:
        return f"worker {worker} fetches as incarnation {incarnation}, not {member.incarnation}"
    if member.fetching or member.pushing:
        return f"worker {worker} fetches while it waits for an answer"
    if number != member.fetches + 1:
        return f"worker {worker} sends fetch {number}, not {member.fetches + 1}"
    return f"worker {worker} fetches ahead, and this gate holds workers back"


def objection_to_push(member: Member, push: PushRequest, version: int) -> str:
    """What is wrong with a push that is refused, while the newest version is this."""
    worker, incarnation, number, base, steps = push[:5]
    if incarnation != member.incarnation:
        return f"worker {worker} pushes as incarnation {incarnation}, not {member.incarnation}"
    if member.fetching or member.pushing:
        return f"worker {worker} pushes while it waits for an answer"
    if number != member.sequence + 1:
        return f"worker {worker} sends push {number}, not {member.sequence + 1}"
    if not 0 < steps <= member.owed - push.returned:
        return f"worker {worker} pushes {steps} minibatches and owes {member.owed - push.returned}"
    return f"worker {worker} pushes work on version {base} of {version}"
