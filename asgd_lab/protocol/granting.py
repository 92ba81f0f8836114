"""Members that join, and the answers to fetches: grants of parameters and leases, as gate and budget allow."""

from __future__ import annotations

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.members import Member, objection_to_fetch
from asgd_lab.protocol.messages import ALL, NO_PART, NOWHERE, Answer, FetchRequest, Grant, Stop, new
from asgd_lab.protocol.parameters import Parameters
from asgd_lab.protocol.parameters_in_parts import InParts
from asgd_lab.protocol.parts import Part
from asgd_lab.protocol.roster import Roster


class Granting(Roster):
    """The server's side of fetches. A server answers pushes too, and decides when the answers are due."""

    __slots__ = (
        "_apart",
        "_first",
        "_holds",
        "_holds_back",
        "_is_divided",
        "_leases",
        "_merging",
        "_parameters_asked",
        "_rounds",
        "_stops",
        "_stops_ns",
        "_wakes",
        "closed",
        "gate",
        "parameters",
        "parts",
        "wake_ns",
    )

    def __init__(
        self, gate: Gate, n_fetch: int, minibatches: int | None, parameters: Parameters | InParts | None, parts: int,
        apart: bool,
    ) -> None:  # fmt: skip
        super().__init__(n_fetch, minibatches)
        if gate.rounds and parts:
            raise ProtocolError("a gate of rounds needs an undivided vector")
        self.gate, self.parameters = gate, parameters
        each = [None] * (parts or 1) if parameters is None else parameters.parts
        # By the part of a message: ALL is the index of the last part, which is the only one.
        self.parts = [Part(index if parts else ALL, self, one, gate.keeps) for index, one in enumerate(each)]
        self._first, self._is_divided, self._apart = self.parts[0], parts > 0, apart
        self.wake_ns: int | None = None  # the time on the run's clock at which it wants a Wake; None: never
        self.closed = False
        self._merging = 0  # pushes that are held or kept
        self._stops_ns = -1  # when the gate was last asked for stops
        self._parameters_asked = 0  # fetches of parameters alone that wait
        # These methods are called only on gates that override them.
        kind = type(gate)
        self._stops, self._wakes = kind.stops is not Gate.stops, kind.wake_ns is not Gate.wake_ns
        self._holds, self._leases = kind.may_fetch is not Gate.may_fetch, kind.lease is not Gate.lease
        self._rounds, self._holds_back = gate.rounds, gate.holds_back  # looked up for every fetch and push

    def on_join(self, worker: int) -> list[Answer]:
        """`worker` joins, as a new incarnation if it was a member before; its pushes are numbered on."""
        if worker in self._members:
            raise ProtocolError(f"worker {worker} joins twice")
        incarnation, sequence, taken = self._past.pop(worker, (0, 0, 0))
        clock = self._clocks.first
        member = self._members[worker] = Member(incarnation + 1, sequence, taken, clock)
        if self._is_divided:
            member.pushed, member.numbers = [0] * len(self.parts), [sequence] * len(self.parts)
        if self._holds_back:
            self._clocks.move(None, clock)
        if self._round_open and not self._first.merging.holds(worker):
            self._allot(worker, member, self.n_fetch)
        return []

    def _release(self, answers: list[Answer]) -> list[Answer]:
        """Merge and grant until nothing changes any more."""
        raise NotImplementedError

    def on_fetch(self, request: FetchRequest) -> list[Answer]:
        """A worker asks for parameters, a lease, or both.

        A lease asked for `ahead` of its need waits for nothing but the end of the worker's own push, if it is held.
        """
        worker, incarnation, number, ahead, part, lease, stopped, _, _ = request
        member = self._members.get(worker)
        if (
            member is None
            or incarnation != member.incarnation
            or (member.fetching and lease)
            or (number != member.fetches + 1 and not self._is_divided)
            or (ahead and lease and self._holds_back)
        ):
            raise ProtocolError(objection_to_fetch(self.member(worker), request))
        if number > member.fetches:
            member.fetches = number
        if stopped:
            self._return(worker, member, request)
        if not lease:
            return self._fetch_part(request, member)
        if ahead and (self._is_divided or worker not in self._first.held):
            return [self._grant(worker, member, number, part)]
        held_up = self._waiting or self._merging or self._rounds or self._parameters_asked
        if not held_up and self._may_go(worker, member, part):
            grant = self._grant(worker, member, number, part)
            if self._wakes:
                self._plan_wake()
            return [grant]
        member.fetching = True
        self._waiting[worker] = number, part, ahead
        self._wait(worker)
        return self._release([])

    def _fetch_part(self, request: FetchRequest, member: Member) -> list[Answer]:
        """A worker asks for parameters alone; they come when its push to that part, if it is held, has ended."""
        worker, at = request.worker, self.parts[request.part]
        if worker in at.waiting:
            raise ProtocolError(f"worker {worker} fetches part {at.part} while it waits for it")
        at.waiting[worker] = request.number, request.ahead
        self._parameters_asked += 1
        if not request.ahead:
            self._wait(worker)
        return self._release([])

    def _go_on(self, worker: int, member: Member) -> None:
        """Mark a member as not idle, unless it waits for something else too."""
        if not member.fetching and not any(
            worker in at.held or (worker in at.waiting and not at.waiting[worker][1]) for at in self.parts
        ):
            self._wait_no_more(worker, member)

    def _rest(self, worker: int, member: Member, number: int) -> None:
        """Mark a member as idle if a part of its push is held, and no other part of it is still to come."""
        if self._apart and min(member.numbers) < number:
            return
        if any(worker in at.held for at in self.parts):
            self._idle.add(worker)  # or it trains; then it counts as idle until the push has ended

    def _may_go(self, worker: int, member: Member, part: int) -> bool:
        """Whether a lease that waits, with the parameters of this part, is granted now."""
        if self.closed or member.allotted:
            return True
        if self._left == 0:  # with a divided vector, all push their remaining work at the same time
            return not self._working or (self._is_divided and member.owed > 0)
        if self._rounds:
            return False
        if not self._merging and not self._holds:
            return True
        at = self._first if part < 0 else self.parts[part]
        if self._merging and part != NO_PART and at.merging.holds(worker):
            return False
        return not self._holds or self.gate.may_fetch(worker, at) or self._held_back()

    def _held_back(self) -> bool:
        """False; ProtocolError if the gate holds a fetch back, and does not say that it does."""
        if not self._holds_back:
            message = "holds a fetch back, so its class must say: holds_back = True"
            raise ProtocolError(f"may_fetch of {self.gate!r} {message}")
        return False

    def _grant(self, worker: int, member: Member, number: int, part: int) -> Grant:
        at = self._first if part < 0 else self.parts[part]
        version = at.version
        if self.closed or (self._left == 0 and not member.allotted):
            if member.owed:
                self._working.add(worker)  # it pushes its remaining work, and fetches again
            return Grant(worker, member.incarnation, number, version, 0, part=part)
        if self._rounds:
            steps, member.allotted = member.allotted, 0
        else:
            steps = self.gate.lease(worker, at) if self._leases else self.n_fetch
            if type(steps) is not int or steps < 1:
                raise ProtocolError(f"lease of {self.gate!r} must be a whole number, 1 at least; got {steps!r}")
            steps = self._lease(worker, member, steps)
        self._working.add(worker)
        member.trials = member.trials + 1 if member.lease_version == version else 1
        member.lease, member.lease_version, member.lease_steps = number, version, steps
        member.lease_ns = self.now_ns
        slot = NOWHERE if part == NO_PART else at.pin(worker)
        return new(Grant, (worker, member.incarnation, number, version, steps, slot, part))

    def _release_part(self, at: Part) -> list[Answer]:
        """Grant the fetches of one part that may go."""
        answers: list[Answer] = []
        for worker, (number, ahead) in list(at.waiting.items()):
            held = at.merging.holds(worker) or (
                self._holds and not (self.gate.may_fetch(worker, at) or self._held_back())
            )
            if held and not self.closed:
                continue
            del at.waiting[worker]
            self._parameters_asked -= 1
            member = self._members[worker]
            if not ahead:
                self._go_on(worker, member)
            answers.append(Grant(worker, member.incarnation, number, at.version, 0, at.pin(worker), at.part))
        return answers

    def _plan_wake(self) -> None:
        """Ask the gate for the time of the next Wake."""
        wake_ns = None if self.closed else self.gate.wake_ns(self._first)
        # A time that had come when the gate was last asked would only be asked for again. It is asked for stops after
        # versions and Wakes, and for all else after every message.
        asked_ns = self._stops_ns if self._stops else self.now_ns
        self.wake_ns = None if wake_ns is None or wake_ns <= asked_ns else max(wake_ns, self.now_ns)

    def _stopped(self) -> list[Answer]:
        """Stops for workers whose lease the gate ends now, each once."""
        self._stops_ns = self.now_ns
        answers: list[Answer] = []
        for worker in self.gate.stops(self._first) if self._stops and not self.closed else ():
            if worker not in self._members:
                raise ProtocolError(f"stops of {self.gate!r} must name members; got {worker!r}")
            member = self._members[worker]
            if worker in self._owing and member.stopped != member.lease:
                member.stopped = member.lease
                answers.append(Stop(worker, member.incarnation, member.lease))
        return answers
