"""The members of a server: their counts, the minibatches that they owe, and the answers that they wait for."""

from __future__ import annotations

from collections.abc import Collection

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.members import Clocks, Kept, Member
from asgd_lab.protocol.messages import PushRequest


class Roster:
    """The server's books on its members. Gates read them."""

    def __init__(self, copies: int) -> None:
        """`copies`: of pushes that are kept, at most."""
        self._members: dict[int, Member] = {}
        self._past: dict[int, tuple[int, int, int]] = {}  # a worker that left -> last incarnation, push, minibatches
        self._owing: set[int] = set()  # members that owe minibatches
        self._working: set[int] = set()  # members that owe minibatches and do not wait for a fetch
        self._waiting: dict[int, None] = {}  # fetches not granted yet, in order of arrival
        self._idle: set[int] = set()  # members that wait for an answer
        self._kept = Kept(copies)
        self._clocks = Clocks()

    @property
    def members(self) -> frozenset[int]:
        """The workers that have joined and not left."""
        return frozenset(self._members)

    @property
    def kept(self) -> list[PushRequest]:
        """The pushes that wait to be merged, in order of arrival."""
        return self._kept.pushes()

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
        """The workers that wait for a grant."""
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

    def _wait(self, worker: int) -> None:
        """Mark a member as idle until it gets an answer."""
        self._working.discard(worker)
        self._idle.add(worker)
