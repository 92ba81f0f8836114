"""The parts of the parameters: spans of the vector, each with versions and collected pushes of its own.

An undivided vector is one part. Parts of a divided one are DistBelief's shards (Dean et al. 2012, section 4.1) or the
fragments of Streaming DiLoCo (Douillard et al. 2025). P is the length of the flat vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.members import Kept, Member, objection_to_push
from asgd_lab.protocol.messages import ALL, DROPPED, KEPT, NO_PART, Ack, Answer, PushRequest, Reason, new
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.roster import Roster


def spans(size: int, parts: int) -> list[slice]:
    """The spans of so many parts of a vector of this size: contiguous, and as equal as can be."""
    return [slice(start, end) for start, end in itertools.pairwise(part * size // parts for part in range(parts + 1))]


def sizes(size_bytes: int, parts: int) -> dict[int, int]:
    """The bytes that a fetch brings from a vector of this size, by the part that it names."""
    each = spans(size_bytes, parts) if parts else []
    return {ALL: size_bytes, NO_PART: 0} | {part: span.stop - span.start for part, span in enumerate(each)}


_NONE = Reason.NONE  # a name that is looked up for every push


class Part:
    """The versions of one part, and the pushes that wait to be merged into the next. It is the View of a gate."""

    __slots__ = ("_books", "held", "merging", "parameters", "part", "version", "version_ns", "waiting")

    def __init__(self, part: int, books: Roster, parameters: Parameters | None, copies: int) -> None:
        """`copies`: of pushes that are kept, at most."""
        self.part, self._books, self.parameters = part, books, parameters
        self.version = 0
        self.version_ns = 0  # when the newest version was made
        self.merging = Kept(copies)
        self.held: set[int] = set()  # workers that wait for the end of a push
        self.waiting: dict[int, tuple[int, bool]] = {}  # worker -> its fetch of this part alone: number, and if ahead

    # ------------------------------------------------------------------ for gates

    @property
    def now_ns(self) -> int:
        """The time on the run's clock at which the current message was heard."""
        return self._books.now_ns

    @property
    def n_fetch(self) -> int:
        """The default minibatches of a lease."""
        return self._books.n_fetch

    @property
    def kept(self) -> list[PushRequest]:
        """The pushes that wait to be merged, in order of arrival."""
        return self.merging.pushes()

    @property
    def members(self) -> Collection[int]:
        """The workers that have joined and not left."""
        return self._books.members

    @property
    def slowest(self) -> int:
        """The rounds that the slowest member has pushed; counted for gates that hold workers back."""
        return self._books.slowest

    @property
    def owing(self) -> Collection[int]:
        """The members that have not pushed all minibatches leased to them."""
        return self._books.owing

    def member(self, worker: int) -> Member:
        """The server's state of a member."""
        return self._books.member(worker)

    # ------------------------------------------------------------------ for the server

    def pin(self, worker: int) -> int:
        """Pin the newest version for `worker`; return its slot."""
        return 0 if self.parameters is None else self.parameters.pin(worker)

    def unpin(self, worker: int) -> None:
        """Let go of the version that `worker` holds, unless a rule may need it for a held push."""
        if self.parameters is not None and not self.merging.holds(worker):
            self.parameters.unpin(worker)

    def apply(self, pushes: Sequence[PushRequest], counts: Sequence[int], copies: Sequence[int] = ()) -> list[Answer]:
        """Make the next version from these pushes, and acknowledge them with these counts of minibatches."""
        if self.parameters is not None:
            self.parameters.step(pushes, copies)
        before = self.version
        self.version = version = before + 1
        self.version_ns = self._books.now_ns
        if len(pushes) == 1:
            worker, incarnation, number, base = pushes[0][:4]
            return [new(Ack, (worker, incarnation, number, version, before - base, counts[0], _NONE, self.part))]
        return [
            new(Ack, (worker, incarnation, number, version, before - base, count, _NONE, self.part))
            for (worker, incarnation, number, base, *_), count in zip(pushes, counts, strict=True)
        ]

    def counted(self, member: Member, push: PushRequest) -> int:
        """The minibatches that have been pushed to all parts of a divided vector with this push, and not before.

        The part of a stopped lease that it returns has been returned already.
        """
        before, pushed = min(member.pushed), member.pushed
        if not 0 < push.steps <= member.owed + before - pushed[self.part]:
            raise ProtocolError(objection_to_push(member, push._replace(returned=0), self.version, held=False))
        pushed[self.part] += push.steps
        member.numbers[self.part] = push.number
        return min(pushed) - before

    def hold(self, push: PushRequest, count: int) -> None:
        """Hold the push in its worker's mailbox, with its count of minibatches."""
        self.held.add(push.worker)
        self.merging.hold(push, count)

    def keep(self, push: PushRequest, count: int) -> Ack:
        """Keep a copy of the push, whose worker continues; return its first Ack."""
        copy = self.merging.copy(push, count)
        if self.parameters is not None:
            self.parameters.keep(push, copy)
        staleness = self.version - push.base
        return Ack(push.worker, push.incarnation, push.number, KEPT, staleness, count, part=self.part)

    def merge(self) -> tuple[Sequence[PushRequest], list[Answer]]:
        """Make one version from all held and kept pushes, by worker and number; return these, and their Acks."""
        pushes, counts, copies = zip(*self.merging.sorted(), strict=True)
        answers = self.apply(pushes, counts, copies if max(copies) >= 0 else ())
        self.merging.clear()
        return pushes, answers

    def drop_all(self, spared: Callable[[PushRequest], bool]) -> tuple[Sequence[PushRequest], list[Answer]]:
        """Drop the held and kept pushes that are not spared, at the end of the run; return these, and their Acks."""
        found = [entry for entry in self.merging.entries.values() if not spared(entry[0])]
        for push, _, _ in found:
            del self.merging.entries[push.worker, push.number]
        return [push for push, _, _ in found], [self.dropped(push, count, Reason.OVER) for push, count, _ in found]

    def dropped(self, push: PushRequest, count: int, reason: Reason) -> Ack:
        """The Ack of a dropped push."""
        staleness = self.version - push.base
        return Ack(push.worker, push.incarnation, push.number, DROPPED, staleness, count, reason, self.part)
