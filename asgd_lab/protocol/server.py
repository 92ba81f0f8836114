"""The server: a reactive object that is called with messages and returns its answers at once.

No thread, clock or socket in this file. It decides membership, order, versions, the budget and the end of the run.

The course of a run: a worker joins, and then alternates between fetches and pushes. A fetch is granted with a number of
minibatches; until they are pushed, the worker *owes* them. A push is applied at once (and makes a version), or held or
kept until it is merged into a version, or dropped. A fetch waits if the gate holds it back, and while a push of its
worker is held. It also waits if the whole budget is leased while another worker still works: if that worker dies, its
share goes to the waiting ones; when no worker works any more, they are granted 0 minibatches: a worker then pushes its
remaining work and fetches again, or leaves if it has none.

The gate decides whether a fetch is granted, the fate of a push, the size of a lease, and stops of leases. Held and kept
pushes are merged when the gate calls them complete, and when all members wait, so that no one waits for ever. With a
gate of rounds, a round's minibatches are allotted to all members at its first fetch, in worker order, so that a
lock-step run does not depend on the order of the fetches.

In a run with several parts, each part has versions, collected pushes and waiting fetches of its own; leases, members
and the budget are common. A minibatch is counted when all parts have been pushed with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.gates import Action, Gate, Verdict
from asgd_lab.protocol.granting import Granting
from asgd_lab.protocol.members import Budget, objection_to_push
from asgd_lab.protocol.messages import (
    Answer,
    FetchRequest,
    Join,
    Leave,
    Message,
    PushRequest,
    Reason,
    Wake,
    Why,
)
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.parameters_in_parts import InParts
from asgd_lab.protocol.parts import Part
from asgd_lab.protocol.window import Limits, Window

# A run fails after so many drops and stops a member, and at least ten times as many, without a minibatch in a version
# in between. No sound gate gets there: of pushes that are too old there is one a member on end, since their workers go
# on from the newest version; and a gate that lets one of a hundred through, by chance, drops 10,000 on end once in
# 10^43 times.
IN_VAIN = 1_000
_APPLY = Action.APPLY  # a name that is looked up for every push


class Server(Granting):
    """A parameter server. Without `parameters` it only counts (timing-only tasks)."""

    __slots__ = (
        "_counted",
        "_errors",
        "_in_vain",
        "_judges",
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
        self, gate: Gate, n_fetch: int, budget: Budget, parameters: Parameters | InParts | None = None, parts: int = 0,
        apart: bool = False,
    ) -> None:  # fmt: skip
        """`apart`: the parts are independent servers, so that every push has all of them."""
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
        self._judges = type(gate).on_push is not Gate.on_push
        self._errors = Window(budget.target_window, budget.target_error)
        self.limits = Limits.of(budget, self._errors)

    def hear(self, message: Message, now_ns: int = 0) -> list[Answer]:
        """Answers to a message heard at this time on the run's clock, including answers to other workers.

        A run is a function of its messages: another server that hears them in the same order, with the same times,
        makes the same versions and answers.
        """
        self.now_ns = now_ns
        kind = type(message)
        if kind is PushRequest:
            return self.on_push(message)  # type: ignore[arg-type]
        if kind is FetchRequest:
            return self.on_fetch(message)  # type: ignore[arg-type]
        if kind is Join:
            return self.on_join(message.worker)  # type: ignore[union-attr]
        if kind is Leave:
            return self.on_leave(message.worker)  # type: ignore[union-attr]
        if kind is Wake:
            return self.on_wake()
        if message.why == Why.STUCK:  # type: ignore[union-attr]
            self.failure = "all workers wait, and the gate grants none of their fetches; a gate must promise progress"
        return self.close()

    @property
    def is_stuck(self) -> bool:
        """Whether all members wait for an answer, none is due, and only another worker's message could change that."""
        return 0 < len(self._members) == len(self._idle) and not (self._merging or self.closed or self.wake_ns)

    @property
    def training_error(self) -> float:
        """Mean error over the last `target_window` minibatches pushed; NaN before the first."""
        return self._errors.mean

    @property
    def kept(self) -> list[PushRequest]:
        """The pushes that wait to be merged: in order of arrival, one part after the other."""
        return [push for at in self.parts for push in at.kept]

    # ------------------------------------------------------------------ messages

    def on_leave(self, worker: int) -> list[Answer]:
        """`worker` has left or died: its owed minibatches return to the budget, and workers that wait for it may go."""
        member = self.member(worker)
        self._past[worker] = (member.incarnation, member.sequence, member.taken)
        del self._members[worker]
        self._working.discard(worker)
        self._waiting.pop(worker, None)
        self._idle.discard(worker)
        self._owing.discard(worker)
        if self._left is not None:
            self._left += member.owed
        if self._holds_back:
            self._clocks.move(member.clock, None)
        for at in self.parts:
            if at.waiting.pop(worker, None) is not None:
                self._parameters_asked -= 1
            at.held.discard(worker)
            at.unpin(worker)
        return self._release([])

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

    def on_wake(self) -> list[Answer]:
        """The time `wake_ns` has come."""
        self.wake_ns = None
        stopped = self._stopped()
        return self._release(stopped + self._end_if_in_vain(len(stopped)))

    def on_push(self, push: PushRequest) -> list[Answer]:
        """An update has arrived in its worker's mailbox, which the worker does not write before the Ack."""
        worker, incarnation, number, base, steps, _, _, _, part, _, stopped, _, returned = push
        member = self._members.get(worker)
        at = self.parts[part]
        if (
            member is None
            or incarnation != member.incarnation
            or member.fetching
            or worker in at.held
            or not 0 <= base <= at.version
            or (
                number <= member.numbers[part]
                if self._is_divided
                else number != member.sequence + 1 or not 0 < steps <= member.owed - returned
            )
        ):
            raise ProtocolError(objection_to_push(self.member(worker), push, at.version, worker in at.held))
        count = at.counted(member, push) if self._is_divided else steps
        if number > member.sequence:
            member.sequence = number
            if self._holds_back:
                self._clocks.move(member.clock, member.clock + 1)
            member.clock += 1
        member.taken += count
        member.owed -= count
        if stopped:
            self._return(worker, member, push)
        member.round_steps, member.round_ns = steps, self.now_ns - member.lease_ns
        if not member.owed:
            self._owing.discard(worker)
            self._working.discard(worker)
        if self.closed and (part <= 0 or number > member.first_applied):
            return [at.dropped(push, count, Reason.OVER)]
        action = _APPLY
        if self._judges:
            verdict = self.gate.on_push(push, at)
            if type(verdict) is not Verdict:
                raise ProtocolError(f"on_push of {self.gate!r} must be APPLY, HOLD, KEEP or drop(...); got {verdict!r}")
            action, reason, returns = verdict
        if action is _APPLY or (self.closed and action != Action.DROP):
            answers = self._applied(at, (push,), at.apply((push,), (count,)))
        elif action != Action.DROP and not self.gate.collects:
            raise ProtocolError(f"{self.gate!r} holds or keeps pushes, so its class must say: collects = True")
        elif action == Action.HOLD:
            self._merging += 1
            at.hold(push, count)
            if not self._is_divided:
                self._wait(worker)
            answers = []
        elif action == Action.KEEP:
            self._merging += 1
            answers = [at.keep(push, count)]
        else:
            answers = [at.dropped(push, count, reason)]
            if returns and self._left is not None:
                self._left += count
            answers += self._end_if_in_vain(1)
        if self._left == 0 and not self._owing and not self._merging:
            self.finished = True
        if self._merging and self._is_divided:
            self._rest(worker, member, number)
        if self._waiting or self._merging or self._is_divided or self._parameters_asked:
            return self._release(answers)
        if self._wakes:
            self._plan_wake()
        return answers

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
