"""The members of a server, their leases of minibatches, and the budget that these come from."""

from __future__ import annotations

from collections.abc import Collection

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.members import Clocks, Member
from asgd_lab.protocol.messages import FetchRequest, PushRequest


class Roster:
    """The server's books on its members."""

    __slots__ = (
        "_clocks",
        "_idle",
        "_left",
        "_members",
        "_owing",
        "_past",
        "_round_open",
        "_waiting",
        "_working",
        "n_fetch",
        "now_ns",
        "wasted",
    )

    def __init__(self, n_fetch: int, minibatches: int | None) -> None:
        """`minibatches`: of the budget, if it limits them."""
        self.n_fetch = n_fetch  # the minibatches of a lease, unless the gate or the budget decides otherwise
        self.now_ns = 0  # on the run's clock, when the current message was heard
        self.wasted = 0  # minibatches taken in stopped leases
        self._left = minibatches  # of the budget, not leased yet
        self._round_open = False  # has a round been allotted, and is not over?
        self._members: dict[int, Member] = {}
        self._past: dict[int, tuple[int, int, int]] = {}  # a worker that left -> last incarnation, push, minibatches
        self._owing: set[int] = set()  # members that owe minibatches
        self._working: set[int] = set()  # members that owe minibatches and do not wait for a fetch
        # The number, part and `ahead` of each worker's waiting request for a lease, in order of arrival.
        self._waiting: dict[int, tuple[int, int, bool]] = {}
        self._idle: set[int] = set()  # members that wait for an answer
        self._clocks = Clocks()

    @property
    def members(self) -> frozenset[int]:
        """The workers that have joined and not left."""
        return frozenset(self._members)

    @property
    def owing(self) -> Collection[int]:
        """The members that have not pushed all minibatches leased to them."""
        return self._owing

    @property
    def slowest(self) -> int:
        """The rounds that the slowest member has pushed; counted for gates that hold workers back."""
        return self._clocks.slowest

    @property
    def waiting(self) -> frozenset[int]:
        """The workers that wait for a lease."""
        return frozenset(self._waiting)

    def standing(self, worker: int) -> tuple[int, int]:
        """The incarnations of `worker` so far, and its number of pushes over all of them."""
        member = self._members.get(worker)
        return self._past[worker][:2] if member is None else (member.incarnation, member.sequence)

    def taken(self, worker: int) -> int:
        """The minibatches that `worker` has pushed or wasted over all its incarnations: its place in the data order."""
        member = self._members.get(worker)
        return self._past.get(worker, (0, 0, 0))[2] if member is None else member.taken

    def fetches(self, worker: int) -> int:
        """The number of the last fetch of a member."""
        return self.member(worker).fetches

    def member(self, worker: int) -> Member:
        """The state of a member; ProtocolError if the worker is not one."""
        member = self._members.get(worker)
        if member is None:
            raise ProtocolError(f"worker {worker} is not a member")
        return member

    # ------------------------------------------------------------------ inside

    def _wait(self, worker: int) -> None:
        """Mark a member as idle until it gets an answer."""
        self._working.discard(worker)
        self._idle.add(worker)

    def _wait_no_more(self, worker: int, member: Member) -> None:
        """Mark a member as not idle."""
        self._idle.discard(worker)
        if member.owed:
            self._working.add(worker)

    def _lease(self, worker: int, member: Member, steps: int) -> int:
        """Lease minibatches, at most as many as the budget has left; return their number."""
        if self._left is not None:
            steps = min(steps, self._left)
            self._left -= steps
        member.owed += steps
        self._owing.add(worker)
        return steps

    def _allot(self, worker: int, member: Member, steps: int) -> None:
        """Lease minibatches of a round, which the member's next fetch grants."""
        member.allotted = steps = self._lease(worker, member, steps)
        if not steps:
            self._settled(worker, member)
        elif not member.fetching:
            self._working.add(worker)

    def _open_round(self) -> None:
        """Allot a round to all members; a round that the budget shortens is divided evenly."""
        self._round_open = True
        members = sorted(self._members.items())
        share, extra = self.n_fetch, 0
        if self._left is not None and self._left < share * len(members):
            share, extra = divmod(self._left, len(members))
        for index, (worker, member) in enumerate(members):
            self._allot(worker, member, share + (index < extra))

    def _return(self, worker: int, member: Member, message: FetchRequest | PushRequest) -> None:
        """Return the minibatches of a stopped lease to the budget: they will not be pushed to all parts.

        Those that have been pushed to some parts are returned too, and count for no part any more.
        """
        if not 0 <= message.wasted <= message.returned <= member.owed:
            raise ProtocolError(f"worker {worker} returns {message.returned} minibatches and owes {member.owed}")
        member.taken += message.wasted
        member.owed -= message.returned
        self.wasted += message.wasted
        if self._left is not None:
            self._left += message.returned
        if member.pushed:
            newer = member.lease_steps if member.lease != message.stopped else 0  # leased ahead meanwhile
            most = min(member.pushed) + member.owed - newer  # pushed to all parts, or on the way to them
            member.pushed = [min(pushed, most) for pushed in member.pushed]
        self._settled(worker, member)

    def _settled(self, worker: int, member: Member) -> None:
        """Note a member that owes nothing any more."""
        if not member.owed:
            self._owing.discard(worker)
            self._working.discard(worker)
