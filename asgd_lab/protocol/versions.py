"""The versions that a server makes of pushes, the waiting answers that they release, and the end of the run."""

from __future__ import annotations

from collections.abc import Sequence

from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.granting import Granting
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import Answer, PushRequest
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.parameters_in_parts import InParts
from asgd_lab.protocol.parts import Part
from asgd_lab.protocol.window import Limits, Window

# A run fails after so many drops and stops a member, and at least ten times as many, without a minibatch in a version
# in between. No sound gate gets there: of pushes that are too old there is one a member on end, since their workers go
# on from the newest version; and a gate that lets one of a hundred through, by chance, drops 10,000 on end once in
# 10^43 times.
IN_VAIN = 1_000


class Versions(Granting):
    """The server's side of held and kept pushes, and of the budget that its versions use up."""

    __slots__ = (
        "_counted",
        "_errors",
        "_in_vain",
        "_updates",
        "budget",
        "ended_by",
        "failure",
        "finished",
        "limits",
        "minibatches",
        "version",
    )

    def __init__(
        self, gate: Gate, n_fetch: int, budget: Budget, parameters: Parameters | InParts | None, parts: int,
        apart: bool,
    ) -> None:  # fmt: skip
        super().__init__(gate, n_fetch, budget.minibatches, parameters, parts, apart)
        self.budget = budget
        self.version = 0  # of the first part
        self.minibatches = 0  # in versions
        self.finished = False  # no push will make a version any more: closed, or all minibatches are pushed
        self.failure: str | None = None  # the reason, if it has closed a run that makes no progress
        self.ended_by: str | None = None  # the key of the budget's limit that has closed it
        self._in_vain = 0  # drops and stops since a minibatch went into a version
        self._counted = 0  # the minibatches in versions at the last of them
        self._updates = budget.updates
        self._errors = Window(budget.target_window, budget.target_error)
        self.limits = Limits.of(budget, self._errors)

    @property
    def training_error(self) -> float:
        """Mean error over the last `target_window` minibatches pushed; NaN before the first."""
        return self._errors.mean

    @property
    def kept(self) -> list[PushRequest]:
        """The pushes that wait to be merged: in order of arrival, one part after the other."""
        return [push for at in self.parts for push in at.kept]

    def close(self) -> list[Answer]:
        """End the run: held and kept pushes are dropped, and every later lease is of 0 minibatches.

        Of a push in several parts, the other parts are still applied if the first one was.
        """
        self.closed = self.finished = True
        self.wake_ns = None
        answers: list[Answer] = []
        for at in self.parts:
            pushes, dropped = at.drop_all(self._begun)
            self._drained(pushes, at)
            answers += dropped
            if at.merging.entries:
                answers += self._merge(at)
        return self._release(answers)

    def _begun(self, push: PushRequest) -> bool:
        """Whether the first part of a push of another part is in a version."""
        member = self._members.get(push.worker)
        if push.part <= 0 or member is None or member.incarnation != push.incarnation:
            return False
        return push.number <= member.first_applied

    # ------------------------------------------------------------------ inside

    def _end_if_in_vain(self, more: int) -> list[Answer]:
        """Count drops or stops; end a run that makes no progress."""
        if self._counted != self.minibatches:
            self._counted, self._in_vain = self.minibatches, 0
        self._in_vain += more
        if self.closed or self._in_vain < IN_VAIN * max(10, len(self._members)):
            return []
        self.failure = (
            f"the gate has dropped or stopped {self._in_vain:,} pushes or leases on end, and no minibatch went into a "
            "version meanwhile; a gate must promise progress"
        )
        return self.close()

    def _drained(self, pushes: Sequence[PushRequest], at: Part) -> None:
        """The held and kept pushes of a part have ended: the workers of held ones wait no more."""
        self._merging -= len(pushes)
        for push in pushes:
            member = self._members.get(push.worker)
            if member is None:
                at.unpin(push.worker)
            elif push.worker in at.held and member.incarnation == push.incarnation:
                at.held.discard(push.worker)
                self._go_on(push.worker, member)

    def _release(self, answers: list[Answer]) -> list[Answer]:
        """Merge and grant until nothing changes any more."""
        while True:
            for at in self.parts if self._merging else ():
                if at.merging.entries and self.gate.complete(at):
                    answers += self._merge(at)
            if self._rounds:
                if self._round_open and not self._owing:
                    self._round_open = False
                if self._waiting and not self._round_open and self._left != 0 and not self.closed:
                    self._open_round()
            for worker, (number, part, ahead) in list(self._waiting.items()):
                member = self._members[worker]
                if (ahead and worker not in self._first.held) or self._may_go(worker, member, part):
                    del self._waiting[worker]
                    member.fetching = False
                    if self._is_divided:
                        self._go_on(worker, member)
                    else:
                        self._idle.discard(worker)
                    answers.append(self._grant(worker, member, number, part))
            for at in self.parts:
                if at.waiting:
                    answers += self._release_part(at)
            if not self._merging or len(self._idle) < len(self._members):
                break
            for at in self.parts:  # all members wait, so no other push can come
                if at.merging.entries:
                    answers += self._merge(at)
        if self._wakes:
            self._plan_wake()
        return answers

    def _merge(self, at: Part) -> list[Answer]:
        """Make one version from all held and kept pushes of a part, by worker and number."""
        pushes, answers = at.merge()
        self._drained(pushes, at)
        return self._applied(at, pushes, answers)

    def _applied(self, at: Part, pushes: Sequence[PushRequest], answers: list[Answer]) -> list[Answer]:
        """Count a version made from these pushes, of which `answers` has the Acks; the run may be over now."""
        for index, push in enumerate(pushes):
            count: int = answers[index].steps  # type: ignore[union-attr]
            loss, error = push[5:7]
            self.minibatches += count
            if error == error:  # a task without errors sends NaN
                self._errors.add(count, error)
            if self.limits is not None:
                self.limits.add(count, loss, error)
        if at is self._first:
            self.version = at.version
            for push in pushes if self._is_divided else ():
                member = self._members.get(push.worker)
                if member is not None and member.incarnation == push.incarnation:
                    member.first_applied = push.number
        if self._left == 0 and not self._owing and not self._merging:
            self.finished = True
        if self.closed:
            return answers
        limits = self.limits
        reached = "updates" if self.version == self._updates else None if limits is None else limits.reached
        if reached:
            self.ended_by = reached
            answers += self.close()
        elif self._stops:
            answers += self._stopped()
        return answers
