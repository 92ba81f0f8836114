"""The server: a reactive object that is called, answers at once, and says whom it releases.

No thread, clock or socket in this file. It decides membership, order, versions, the budget and the end of the run.

How a run passes through it. A worker joins, and then alternates between fetches and pushes. A fetch is granted with a
number of minibatches; until they have been pushed, the worker *owes* them. A push is applied at once (and makes a
version), or collected until nobody owes the round any more (and merged into a version), or dropped because the run is
over. A fetch that the gate holds back waits. So does one that finds the budget all granted while somebody still works
for it: if that worker dies, its share falls back to those who wait; when nobody works any more, they are granted 0
minibatches, which tells a worker to hand in what it has not pushed and ask again, or to leave if it has pushed all.

A collecting gate allots a round's minibatches to all members at its first fetch, in worker order, so that the outcome
of a lock-step run does not depend on who asks first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.grants import DROPPED, FetchGrant, Grant, PushGrant
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.replica import Arrived
from asgd_lab.protocol.window import ErrorWindow


@dataclass(frozen=True, slots=True)
class Budget:
    """What ends a run, as far as the server can see it (a clock's budget is the backend's, which then closes)."""

    minibatches: int | None = None  # over all workers, exactly
    updates: int | None = None  # versions
    target_error: float | None = None  # of the training error that comes with the pushes,
    target_window: int = 50  # averaged over at least so many minibatches


@dataclass(slots=True, eq=False)
class _Member:
    incarnation: int
    sequence: int  # of its last push; incarnations go on counting
    taken: int  # minibatches that it has pushed, likewise
    clock: int  # rounds pushed; a joiner starts at the slowest member's
    owed: int = 0  # minibatches granted or allotted and not pushed yet
    allotted: int = 0  # of a collecting round: granted by the next fetch
    fetching: bool = False
    pushing: bool = False


class Server:
    """One parameter server. Without `parameters` it only counts (timing-only tasks)."""

    def __init__(self, gate: Gate, n_fetch: int, budget: Budget, parameters: Parameters | None = None) -> None:
        self.gate, self.n_fetch, self.budget, self.parameters = gate, n_fetch, budget, parameters
        self.version = 0
        self.minibatches = 0  # in versions
        self.closed = False
        self.finished = False  # no push will make a version any more: closed, or the minibatches are all pushed
        self._members: dict[int, _Member] = {}
        self._past: dict[int, tuple[int, int, int]] = {}  # who left -> its last incarnation and push, and what it took
        self._updates = budget.updates
        self._left = budget.minibatches  # minibatches nobody has been granted yet
        self._owing: set[int] = set()  # members that owe minibatches
        self._working: set[int] = set()  # those of them that are not waiting for a fetch
        self._waiting: dict[int, None] = {}  # fetches not granted yet, in order of arrival
        self._collected: dict[int, Arrived] = {}
        self._round_open = False  # has a collecting gate allotted the round?
        self._clocks: Counter[int] = Counter()
        self._slowest = 0
        self._window = ErrorWindow(budget.target_window, budget.target_error)

    # ------------------------------------------------------------------ membership

    @property
    def members(self) -> frozenset[int]:
        """Who is in."""
        return frozenset(self._members)

    @property
    def waiting(self) -> frozenset[int]:
        """Whose fetch is not granted yet."""
        return frozenset(self._waiting)

    @property
    def training_error(self) -> float:
        """Mean error over the last `target_window` minibatches pushed; NaN before the first."""
        return self._window.mean

    def standing(self, worker: int) -> tuple[int, int]:
        """How many times `worker` has joined and how many pushes it has made, over all its incarnations."""
        member = self._members.get(worker)
        return self._past[worker][:2] if member is None else (member.incarnation, member.sequence)

    def taken(self, worker: int) -> int:
        """The minibatches that `worker` has pushed, over all its incarnations: where its next one goes on."""
        member = self._members.get(worker)
        return self._past.get(worker, (0, 0, 0))[2] if member is None else member.taken

    def on_join(self, worker: int) -> list[Grant]:
        """`worker` is in, as a new incarnation if it has been here before; its sequence of pushes goes on."""
        if worker in self._members:
            raise ProtocolError(f"worker {worker} joins twice")
        incarnation, sequence, taken = self._past.pop(worker, (0, 0, 0))
        clock = self._slowest if self._clocks else 0
        member = self._members[worker] = _Member(incarnation + 1, sequence, taken, clock)
        if self.gate.bound is not None:
            self._tick(None, clock)
        if self._round_open and worker not in self._collected:
            self._allot(worker, member, self.n_fetch)
        return []

    def on_leave(self, worker: int) -> list[Grant]:
        """`worker` is out, by its own word or by its death: what it owed falls back, who waits for it is released."""
        member = self._member(worker)
        self._past[worker] = (member.incarnation, member.sequence, member.taken)
        del self._members[worker]
        self._working.discard(worker)
        self._waiting.pop(worker, None)
        self._owing.discard(worker)
        if self._left is not None:
            self._left += member.owed
        if self.gate.bound is not None:
            self._tick(member.clock, None)
        if self.parameters is not None:
            self.parameters.unpin(worker)
        return self._release([])

    def close(self) -> list[Grant]:
        """The run is over: what is collected is dropped, every fetch from now on is granted 0 minibatches."""
        self.closed = self.finished = True
        grants: list[Grant] = [self._dropped(a) for a in self._collected.values()]
        self._collected.clear()
        return self._release(grants)

    # ------------------------------------------------------------------ the two requests

    def on_fetch(self, worker: int, ahead: bool = False) -> list[Grant]:
        """`worker` asks for parameters; `ahead` of its need, it does not wait for what it cannot have now."""
        member = self._members.get(worker) or self._member(worker)
        if member.fetching or member.pushing:
            raise ProtocolError(f"worker {worker} fetches while it waits for an answer")
        if ahead:
            if self.gate.bound is not None:
                raise ProtocolError(f"worker {worker} fetches ahead, and this gate holds workers back")
            return [self._grant(worker, member)]
        if not self._waiting and not self.gate.collects and self._may_go(member):
            return [self._grant(worker, member)]
        member.fetching = True
        self._waiting[worker] = None
        self._working.discard(worker)
        return self._release([])

    def on_push(self, arrived: Arrived) -> list[Grant]:
        """An update has arrived in its worker's mailbox, which stays untouched until the push is granted."""
        worker, incarnation, sequence, base, steps, _, error, _ = arrived
        member = self._members.get(worker)
        if (
            member is None
            or incarnation != member.incarnation
            or member.fetching
            or member.pushing
            or sequence != member.sequence + 1
            or not 0 < steps <= member.owed
            or not 0 <= base <= self.version
        ):
            raise ProtocolError(self._objection(arrived))
        member.sequence = sequence
        member.taken += steps
        member.owed -= steps
        if self.gate.bound is not None:
            self._tick(member.clock, member.clock + 1)
        member.clock += 1
        if not member.owed:
            self._owing.discard(worker)
            self._working.discard(worker)
            self.finished = self.finished or (self._left == 0 and not self._owing)
        if self.closed:
            return [self._dropped(arrived)]
        if not self.gate.collects:
            if self.parameters is not None:
                self.parameters.step((worker,))
            grants = self._count_version(((worker, incarnation, sequence, base, steps, error),))
            return self._release(grants) if self._waiting else grants
        member.pushing = True
        self._collected[worker] = arrived
        return self._release([])

    # ------------------------------------------------------------------ inside

    def _member(self, worker: int) -> _Member:
        member = self._members.get(worker)
        if member is None:
            raise ProtocolError(f"worker {worker} is not a member")
        return member

    def _objection(self, arrived: Arrived) -> str:
        """What is wrong with a push."""
        worker = arrived.worker
        member = self._member(worker)
        if arrived.incarnation != member.incarnation:
            return f"worker {worker} pushes as incarnation {arrived.incarnation}, not {member.incarnation}"
        if member.fetching or member.pushing:
            return f"worker {worker} pushes while it waits for an answer"
        if arrived.sequence != member.sequence + 1:
            return f"worker {worker} sends push {arrived.sequence}, not {member.sequence + 1}"
        if not 0 < arrived.steps <= member.owed:
            return f"worker {worker} pushes {arrived.steps} minibatches and owes {member.owed}"
        return f"worker {worker} pushes work on version {arrived.base} of {self.version}"

    def _tick(self, old: int | None, new: int | None) -> None:
        """Keep the slowest member's clock, for a gate that looks at it."""
        if new is not None:
            self._clocks[new] += 1
        if old is not None:
            self._clocks[old] -= 1
            if not self._clocks[old]:
                del self._clocks[old]
        if self._clocks and (self._slowest not in self._clocks or (new is not None and new < self._slowest)):
            self._slowest = min(self._clocks)

    def _may_go(self, member: _Member) -> bool:
        if self.closed:
            return True
        if self.gate.collects and member.allotted:
            return True
        if self._left == 0:
            return not self._working
        return not self.gate.collects and (self.gate.bound is None or member.clock - self._slowest <= self.gate.bound)

    def _grant(self, worker: int, member: _Member) -> FetchGrant:
        if self.closed or (self._left == 0 and not member.allotted):
            if member.owed:
                self._working.add(worker)  # it hands in what it has not pushed, and asks again
            return FetchGrant(worker, self.version, 0)
        if self.gate.collects:
            steps, member.allotted = member.allotted, 0
        else:
            steps = self.n_fetch
            if self._left is not None:
                steps = min(steps, self._left)
                self._left -= steps
            member.owed += steps
            self._owing.add(worker)
        self._working.add(worker)
        if self.parameters is not None:
            self.parameters.pin(worker)
        return FetchGrant(worker, self.version, steps)

    def _allot(self, worker: int, member: _Member, steps: int) -> None:
        if self._left is not None:
            steps = min(steps, self._left)
            self._left -= steps
        member.allotted = steps
        member.owed += steps
        if steps:
            self._owing.add(worker)
            if not member.fetching:
                self._working.add(worker)

    def _open_round(self) -> None:
        """Allot a collecting round to all members; one that the budget shortens is shared as evenly as can be."""
        self._round_open = True
        members = sorted(self._members.items())
        share, extra = self.n_fetch, 0
        if self._left is not None and self._left < share * len(members):
            share, extra = divmod(self._left, len(members))
        for index, (worker, member) in enumerate(members):
            self._allot(worker, member, share + (index < extra))

    def _release(self, grants: list[Grant]) -> list[Grant]:
        """Grant all that may go on now, until nothing changes any more."""
        if self._round_open and not self._owing:
            self._round_open = False
            if self._collected:
                grants += self._merge()
        if self.gate.collects and self._waiting and not self._round_open and self._left != 0 and not self.closed:
            self._open_round()
        for worker in list(self._waiting):
            member = self._members[worker]
            if self._may_go(member):
                del self._waiting[worker]
                member.fetching = False
                grants.append(self._grant(worker, member))
        return grants

    def _merge(self) -> list[Grant]:
        """One version of all that is collected, in worker order."""
        arrived = [self._collected.pop(worker) for worker in sorted(self._collected)]
        if self.parameters is not None:
            self.parameters.step([each.worker for each in arrived])
        for each in arrived:
            self._let_go(each)
        return self._count_version([(*each[:5], each.error) for each in arrived])

    def _count_version(self, pushes: Sequence[tuple[int, int, int, int, int, float]]) -> list[Grant]:
        """A version has been made of these: (worker, incarnation, sequence, base, steps, error) each."""
        self.version = version = self.version + 1
        grants: list[Grant] = []
        for worker, incarnation, sequence, base, steps, error in pushes:
            self.minibatches += steps
            if error == error:  # a task without errors sends NaN
                self._window.add(steps, error)
            grants.append(PushGrant(worker, incarnation, sequence, version, version - 1 - base, steps))
        if version == self._updates or (self._window.target is not None and self._window.reached):
            grants += self.close()
        return grants

    def _let_go(self, arrived: Arrived) -> None:
        member = self._members.get(arrived.worker)
        if member is not None and member.incarnation == arrived.incarnation:
            member.pushing = False

    def _dropped(self, arrived: Arrived) -> PushGrant:
        self._let_go(arrived)
        staleness = self.version - arrived.base
        return PushGrant(arrived.worker, arrived.incarnation, arrived.sequence, DROPPED, staleness, arrived.steps)
