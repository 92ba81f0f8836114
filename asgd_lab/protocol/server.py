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

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.gates import Action, Gate, Verdict
from asgd_lab.protocol.members import Budget, objection_to_push
from asgd_lab.protocol.messages import Answer, FetchRequest, Join, Leave, Message, PushRequest, Reason, Wake, Why
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.parameters_in_parts import InParts
from asgd_lab.protocol.versions import Versions

_APPLY = Action.APPLY  # a name that is looked up for every push


class Server(Versions):
    """A parameter server. Without `parameters` it only counts (timing-only tasks)."""

    __slots__ = ("_judges",)

    def __init__(
        self, gate: Gate, n_fetch: int, budget: Budget, parameters: Parameters | InParts | None = None, parts: int = 0,
        apart: bool = False,
    ) -> None:  # fmt: skip
        """`apart`: the parts are independent servers, so that every push has all of them."""
        super().__init__(gate, n_fetch, budget, parameters, parts, apart)
        self._judges = type(gate).on_push is not Gate.on_push

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
        if stopped:
            self._return(worker, member, push)
        count = at.counted(member, push) if self._is_divided else steps
        if number > member.sequence:
            member.sequence = number
            if self._holds_back:
                self._clocks.move(member.clock, member.clock + 1)
            member.clock += 1
        member.taken += count
        member.owed -= count
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
