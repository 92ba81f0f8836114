"""The server: a reactive object that is called with messages and returns its answers at once.

No thread, clock or socket in this file. It decides membership, order, versions, the budget and the end of the run.

The course of a run: a worker joins, and then alternates between fetches and pushes. A fetch is granted with a number of
minibatches; until they are pushed, the worker *owes* them. A push is applied at once (and makes a version), or held or
kept until it is merged into a version, or dropped. A fetch waits if the gate holds it back. It also waits if the whole
budget is leased while another worker still works: if that worker dies, its share goes to the waiting ones; when no
worker works any more, they are granted 0 minibatches: a worker then pushes its remaining work and fetches again, or
leaves if it has none.

The gate decides whether a fetch is granted, the fate of a push, the size of a lease, and stops of leases. Held and kept
pushes are merged when the gate calls them complete, and when all members wait, so that no one waits for ever. With a
gate of rounds, a round's minibatches are allotted to all members at its first fetch, in worker order, so that a
lock-step run does not depend on the order of the fetches.
"""

from __future__ import annotations

from collections.abc import Sequence

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.gates import APPLY, Action, Gate
from asgd_lab.protocol.members import Budget, Kept, Member, objection_to_fetch, objection_to_push
from asgd_lab.protocol.messages import (
    ALL,
    DROPPED,
    KEPT,
    Ack,
    Answer,
    FetchRequest,
    Grant,
    Join,
    Leave,
    Message,
    PushRequest,
    Reason,
    Stop,
    Wake,
    new,
)
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.roster import Roster
from asgd_lab.protocol.window import ErrorWindow


class Server(Roster):
    """A parameter server. Without `parameters` it only counts (timing-only tasks)."""

    def __init__(self, gate: Gate, n_fetch: int, budget: Budget, parameters: Parameters | None = None) -> None:
        super().__init__(gate.keeps)
        self._any_kept = self._kept.entries  # looked at so often that it has a name
        self.gate, self.n_fetch, self.budget, self.parameters = gate, n_fetch, budget, parameters
        self.version = 0
        self.version_ns = self.now_ns = 0  # when the newest version was made, and the current message heard
        self.minibatches = 0  # in versions
        self.wasted = 0  # minibatches taken in stopped leases
        self.wake_ns: int | None = None  # the time on the run's clock at which it wants a Wake; None: never
        self.closed = False
        self.finished = False  # no push will make a version any more: closed, or all minibatches are pushed
        self._updates = budget.updates
        self._left = budget.minibatches  # minibatches not leased yet
        self._round_open = False  # has a round been allotted, and is not over?
        # These methods are called only on gates that override them.
        kind = type(gate)
        self._stops, self._wakes = kind.stops is not Gate.stops, kind.wake_ns is not Gate.wake_ns
        self._holds, self._leases = kind.may_fetch is not Gate.may_fetch, kind.lease is not Gate.lease
        self._judges = kind.on_push is not Gate.on_push
        self._window = ErrorWindow(budget.target_window, budget.target_error)

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
        return self.on_wake() if kind is Wake else self.close()

    @property
    def training_error(self) -> float:
        """Mean error over the last `target_window` minibatches pushed; NaN before the first."""
        return self._window.mean

    def on_join(self, worker: int) -> list[Answer]:
        """`worker` joins, as a new incarnation if it was a member before; its pushes are numbered on."""
        if worker in self._members:
            raise ProtocolError(f"worker {worker} joins twice")
        incarnation, sequence, taken = self._past.pop(worker, (0, 0, 0))
        clock = self._clocks.first
        member = self._members[worker] = Member(incarnation + 1, sequence, taken, clock)
        if self.gate.holds_back:
            self._clocks.move(None, clock)
        if self._round_open and not self._kept.holds(worker):
            self._allot(worker, member, self.n_fetch)
        return []

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
        if self.gate.holds_back:
            self._clocks.move(member.clock, None)
        if self.parameters is not None and not self._kept.holds(worker):  # a rule may need the center of a held push
            self.parameters.unpin(worker)
        return self._release([])

    def close(self) -> list[Answer]:
        """End the run: held and kept pushes are dropped, and every later fetch is granted 0 minibatches."""
        self.closed = self.finished = True
        self.wake_ns = None
        answers: list[Answer] = [self._dropped(push, Reason.OVER) for push in self.kept]
        self._drain()
        return self._release(answers)

    def on_wake(self) -> list[Answer]:
        """The time `wake_ns` has come."""
        self.wake_ns = None
        return self._release(self._stopped())

    def on_fetch(self, request: FetchRequest) -> list[Answer]:
        """A worker asks for parameters; a fetch `ahead` of its need never waits."""
        worker, incarnation, number, ahead, _, stopped, _, _ = request
        member = self._members.get(worker)
        if (
            member is None
            or incarnation != member.incarnation
            or number != member.fetches + 1
            or member.fetching
            or member.pushing
            or (ahead and self.gate.holds_back)
        ):
            raise ProtocolError(objection_to_fetch(self.member(worker), request))
        member.fetches = number
        if stopped:
            self._return(worker, member, request)
        if ahead:
            return [self._grant(worker, member)]
        if not self._waiting and not self._any_kept and not self.gate.rounds and self._may_go(worker, member):
            grant = self._grant(worker, member)
            return self._release([grant]) if self._wakes else [grant]
        member.fetching = True
        self._waiting[worker] = None
        self._wait(worker)
        return self._release([])

    def on_push(self, push: PushRequest) -> list[Answer]:
        """An update has arrived in its worker's mailbox, which the worker does not write before the Ack."""
        worker, incarnation, number, base, steps = push[:5]
        member = self._members.get(worker)
        if (
            member is None
            or incarnation != member.incarnation
            or member.fetching
            or member.pushing
            or number != member.sequence + 1
            or not 0 < steps <= member.owed - push.returned
            or not 0 <= base <= self.version
        ):
            raise ProtocolError(objection_to_push(self.member(worker), push, self.version))
        member.sequence = number
        member.taken += steps
        member.owed -= steps
        if push.stopped:
            self._return(worker, member, push)
        if self.gate.holds_back:
            self._clocks.move(member.clock, member.clock + 1)
        member.clock += 1
        member.round_steps, member.round_ns = steps, self.now_ns - member.lease_ns
        if not member.owed:
            self._owing.discard(worker)
            self._working.discard(worker)
        if self.closed:
            return [self._dropped(push, Reason.OVER)]
        action, reason, returns = self.gate.on_push(push, self) if self._judges else APPLY
        if action is Action.APPLY:
            if self.parameters is not None:
                self.parameters.step((push,))
            answers = self._count_version((push,))
        elif action == Action.HOLD:
            member.pushing = True
            self._kept.hold(push)
            self._wait(worker)
            answers = []
        elif action == Action.KEEP:
            copy = self._kept.copy(push)
            if self.parameters is not None:
                self.parameters.keep(push, copy)
            answers = [Ack(worker, incarnation, number, KEPT, self.version - base, steps)]
        else:
            answers = [self._dropped(push, reason)]
            if returns and self._left is not None:
                self._left += steps
        if self._left == 0 and not self._owing and not self._any_kept:
            self.finished = True
        return self._release(answers) if self._waiting or self._any_kept or self._wakes else answers

    def _return(self, worker: int, member: Member, message: FetchRequest | PushRequest) -> None:
        """Return the minibatches of a stopped lease to the budget: no push will carry them."""
        if not 0 <= message.wasted <= message.returned <= member.owed:
            raise ProtocolError(f"worker {worker} returns {message.returned} minibatches and owes {member.owed}")
        member.taken += message.wasted
        member.owed -= message.returned
        self.wasted += message.wasted
        if self._left is not None:
            self._left += message.returned
        if not member.owed:
            self._owing.discard(worker)
            self._working.discard(worker)

    def _drain(self) -> None:
        """Forget all held and kept pushes; the workers of held pushes wait no more."""
        for push, copy in self._kept.sorted():
            member = self._members.get(push.worker)
            if member is None:
                if self.parameters is not None:
                    self.parameters.unpin(push.worker)
            elif copy == Kept.IN_MAILBOX and member.incarnation == push.incarnation:
                member.pushing = False
                self._idle.discard(push.worker)
                if member.owed:
                    self._working.add(push.worker)
        self._kept.clear()

    def _stopped(self) -> list[Answer]:
        """Stops for workers whose lease the gate ends now, each once."""
        answers: list[Answer] = []
        for worker in self.gate.stops(self) if self._stops and not self.closed else ():
            member = self._members[worker]
            if worker in self._owing and member.stopped != member.lease:
                member.stopped = member.lease
                answers.append(Stop(worker, member.incarnation, member.lease))
        return answers

    def _may_go(self, worker: int, member: Member) -> bool:
        if self.closed or member.allotted:
            return True
        if self._left == 0:
            return not self._working
        if self.gate.rounds or (self._any_kept and self._kept.holds(worker)):
            return False
        return not self._holds or self.gate.may_fetch(worker, self)

    def _grant(self, worker: int, member: Member) -> Grant:
        if self.closed or (self._left == 0 and not member.allotted):
            if member.owed:
                self._working.add(worker)  # it pushes its remaining work, and fetches again
            return Grant(worker, member.incarnation, member.fetches, self.version, 0)
        if self.gate.rounds:
            steps, member.allotted = member.allotted, 0
        else:
            steps = self.gate.lease(worker, self) if self._leases else self.n_fetch
            if steps < 1:
                raise ProtocolError(f"the gate leases {steps} minibatches to worker {worker}; it must be 1 at least")
            if self._left is not None:
                steps = min(steps, self._left)
                self._left -= steps
            member.owed += steps
            self._owing.add(worker)
        self._working.add(worker)
        member.trials = member.trials + 1 if member.lease_version == self.version else 1
        member.lease, member.lease_version, member.lease_steps = member.fetches, self.version, steps
        member.lease_ns = self.now_ns
        slot = 0 if self.parameters is None else self.parameters.pin(worker)
        return new(Grant, (worker, member.incarnation, member.fetches, self.version, steps, slot, ALL))

    def _allot(self, worker: int, member: Member, steps: int) -> None:
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
        """Allot a round to all members; a round that the budget shortens is divided evenly."""
        self._round_open = True
        members = sorted(self._members.items())
        share, extra = self.n_fetch, 0
        if self._left is not None and self._left < share * len(members):
            share, extra = divmod(self._left, len(members))
        for index, (worker, member) in enumerate(members):
            self._allot(worker, member, share + (index < extra))

    def _release(self, answers: list[Answer]) -> list[Answer]:
        """Merge and grant until nothing changes any more."""
        while True:
            if self._any_kept and self.gate.complete(self):
                answers += self._merge()
            if self.gate.rounds:
                if self._round_open and not self._owing:
                    self._round_open = False
                if self._waiting and not self._round_open and self._left != 0 and not self.closed:
                    self._open_round()
            for worker in list(self._waiting):
                member = self._members[worker]
                if self._may_go(worker, member):
                    del self._waiting[worker]
                    member.fetching = False
                    self._idle.discard(worker)
                    answers.append(self._grant(worker, member))
            if not self._any_kept or len(self._idle) < len(self._members):
                break
            answers += self._merge()  # all members wait, so no other push can come
        if self._wakes:
            wake_ns = None if self.closed else self.gate.wake_ns(self)
            # The gate has just been asked what is due by now: a time that has come would only be asked for again.
            self.wake_ns = wake_ns if wake_ns is not None and wake_ns > self.now_ns else None
        return answers

    def _merge(self) -> list[Answer]:
        """Make one version from all held and kept pushes, by worker and number."""
        pushes, copies = zip(*self._kept.sorted(), strict=True)
        if self.parameters is not None:
            self.parameters.step(pushes, copies if max(copies) >= 0 else ())
        self._drain()
        return self._count_version(pushes)

    def _count_version(self, pushes: Sequence[PushRequest]) -> list[Answer]:
        """Count a version made from these pushes, and acknowledge them."""
        self.version = version = self.version + 1
        self.version_ns = self.now_ns
        answers: list[Answer] = []
        for push in pushes:
            worker, incarnation, number, base, steps, _, error = push[:7]
            self.minibatches += steps
            if error == error:  # a task without errors sends NaN
                self._window.add(steps, error)
            staleness = version - 1 - base
            answers.append(new(Ack, (worker, incarnation, number, version, staleness, steps, Reason.NONE, ALL)))
        if self._left == 0 and not self._owing and not self._any_kept:
            self.finished = True
        if version == self._updates or (self._window.target is not None and self._window.reached):
            answers += self.close()
        elif self._stops:
            answers += self._stopped()
        return answers

    def _dropped(self, push: PushRequest, reason: Reason) -> Ack:
        staleness = self.version - push.base
        return Ack(push.worker, push.incarnation, push.number, DROPPED, staleness, push.steps, reason)
