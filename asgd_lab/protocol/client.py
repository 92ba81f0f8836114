"""The worker's end of the protocol: drives a program, numbers its requests, and matches answers to them.

No I/O in this file. A carrier (inline, simulated, a real process, a replay) asks `advance` for the next thing to do,
does it, and hands over the answers that arrive:

    Train                       take `replica.steps` minibatches, fewer once `stopping` is set, then call `trained`
    FetchRequest, PushRequest   send it, then advance
    Grant, Ack                  the program has taken an answer that had arrived before; then advance
    Wait                        the program waited for an exchange that is not in flight; advance
    Leave                       the program has ended; send it
    None                        the program waits for the answer to `awaits`: hear it

Each life of a worker has one client. A fetch takes effect when the program waits for it, not when its answer arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.effects import Effect, Fetch, Program, Push, Start, Train, Wait
from asgd_lab.protocol.messages import ALL, Ack, Answer, FetchRequest, Grant, Leave, PushRequest, Request, Stop, new
from asgd_lab.protocol.replica import Replica

FETCH = -1  # in place of a buffer: the fetch
NOTHING = -2
R = TypeVar("R", FetchRequest, PushRequest)
Step = Train | FetchRequest | PushRequest | Grant | Ack | Wait | Leave


class Client:
    """The client of one life of a worker."""

    __slots__ = (
        "_answers", "_early", "_stopped", "_then", "_under_way", "_void", "awaits", "fetches",
        "lease", "program", "replica", "stopping",
    )  # fmt: skip

    def __init__(self, replica: Replica, program: Program) -> None:
        self.replica, self.program = replica, program
        self.fetches = 0  # the number of the last one
        self.awaits: int | None = None  # FETCH, or the buffer of a push
        self.stopping = False  # has the current lease been stopped?
        self._under_way: dict[int, Request] = {}  # requests without an answer, by FETCH or buffer, in the order sent
        self._answers: dict[int, Grant | Ack] = {}  # heard, and not taken by the program yet
        self._then = False  # does a fetch follow the push that the program waits for?
        self._early = False  # has the next fetch been sent already?
        self.lease = 0  # the number of the fetch that the current minibatches were leased with
        self._stopped = 0  # the number of the last stopped lease
        self._void: tuple[int, int, int] | None = None  # of a stopped lease, for the next request

    # ------------------------------------------------------------------ for the carrier

    def begin(self, incarnation: int, pushes: int, minibatches: int, fetches: int = 0) -> None:
        """Begin this life as that incarnation, with the worker's counts so far."""
        replica = self.replica
        replica.incarnation, replica.sequence, replica.minibatches = incarnation, pushes, minibatches
        self.fetches = fetches

    def advance(self) -> Step | None:
        """Resume the program up to the next task of its carrier; see above."""
        while self.awaits is None:
            effect = next(self.program, None)
            kind = type(effect)
            if kind is Train:
                if not self.stopping:
                    return effect  # type: ignore[return-value]
                self.trained(0.0, 0.0, 0)
            elif kind is Push:
                self.awaits = effect.buffer  # type: ignore[union-attr]
                self._then = effect.then is not None  # type: ignore[union-attr]
                return self._push(self.awaits)
            elif kind is Fetch:
                self.awaits = FETCH
                if not self._early:
                    return self._fetch(ahead=False)
                self._early = False
                if FETCH in self._answers:
                    return self._take(FETCH, self._answers.pop(FETCH))
            else:
                return self._other(effect)
        return None

    def hear(self, answer: Answer) -> bool:
        """True if the program was waiting for this answer, and has taken it.

        Otherwise the answer is kept until the program waits for it, or ignored if it is for another life or repeated.
        """
        if answer.incarnation != self.replica.incarnation:
            return False
        if type(answer) is Stop:
            self._stopped = answer.number
            self.stopping = self.stopping or answer.number == self.lease
            return False
        if (awaits := self.awaits) is not None:
            request = self._under_way[awaits]
            if request.number == answer.number and type(answer) is (Grant if awaits == FETCH else Ack):
                self._take(awaits, answer)
                return True
        which = FETCH if type(answer) is Grant else self._buffer_of(answer.number)
        if which in self._under_way and self._under_way[which].number == answer.number:
            self._answers[which] = answer  # type: ignore[assignment]
        return False

    def trained(self, loss_sum: float, error_sum: float, taken: int | None = None) -> None:
        """End a Train after `taken` minibatches (None: all), with the sums of their losses and errors.

        Fewer than all only after a stop: work that is not pushed is then void, and the program continues without a
        lease.
        """
        replica = self.replica
        if taken is None or taken == replica.steps:
            replica.trained(loss_sum, error_sum)
            return
        if not self.stopping:
            raise ProtocolError(f"worker {replica.worker} ends a Train early, and nobody has stopped it")
        if self._void is not None:
            raise ProtocolError(f"worker {replica.worker} sends nothing between two leases that are stopped")
        self.stopping = False
        self._void = self.lease, *replica.stopped(taken)

    def early_fetch(self) -> FetchRequest | None:
        """The request of the fetch that follows the push the program waits for; None if none is known to follow."""
        if not self._then or self._early or FETCH in self._under_way:
            return None
        self._early = True
        return self._fetch(ahead=False)

    def place(self) -> tuple[list[int], list[float]]:
        """The state of this life, without its tensors, while it waits for a fetch alone; the fetch counts as unsent."""
        whole, sums = self.replica.place()
        fetch = self._under_way[FETCH]
        return [*whole, self.fetches - 1, fetch.stopped, fetch.wasted, fetch.returned], sums

    def resume(self, whole: Sequence[int], sums: Sequence[float]) -> None:
        """Restore the `place` of another client of the same life; the program begins with the unsent fetch."""
        *place, fetches, stopped, wasted, returned = [*whole, 0, 0, 0][:10]  # earlier versions had no stops
        self.replica.resume(place, sums)
        self.fetches = fetches
        self._void = (stopped, wasted, returned) if stopped else None

    def unanswered(self) -> list[Request]:
        """The requests without an answer, in the order sent, to resend to a new server."""
        return [request for which, request in self._under_way.items() if which not in self._answers]

    def is_under_way(self, which: int) -> bool:
        """Whether the fetch, or the push from this buffer, was sent and its answer is not taken by the program yet."""
        return which in self._under_way

    def close(self) -> None:
        """End this life, at any point of its program."""
        self.program.close()

    # ------------------------------------------------------------------ inside

    def _other(self, effect: Effect | None) -> Step | None:
        """Handle Start, Wait, and the end of the program."""
        if effect is None:
            return Leave(self.replica.worker, self.replica.incarnation)
        if not isinstance(effect, Start | Wait):
            raise ProtocolError(f"worker {self.replica.worker} yields {effect!r}, which is no effect")
        exchange = effect.effect
        which = FETCH if type(exchange) is Fetch else exchange.buffer  # type: ignore[union-attr]
        if type(effect) is Start:
            return self._fetch(ahead=True) if which == FETCH else self._push(which)
        if which not in self._under_way:
            return effect  # type: ignore[return-value]
        self.awaits = which
        answer = self._answers.pop(which, None)
        return None if answer is None else self._take(which, answer)

    def _fetch(self, ahead: bool) -> FetchRequest:
        if FETCH in self._under_way:
            raise self._started_twice("a fetch")
        self.fetches = number = self.fetches + 1
        replica = self.replica
        request = new(FetchRequest, (replica.worker, replica.incarnation, number, ahead, ALL, 0, 0, 0))
        if self._void is not None:
            request, self._void = _with(request, self._void), None
        self._under_way[FETCH] = request
        return request

    def _push(self, buffer: int) -> PushRequest:
        if buffer in self._under_way:
            raise self._started_twice(f"a push from buffer {buffer}")
        request = self.replica.arriving()
        if self._void is not None:
            request, self._void = _with(request, self._void), None
        self._under_way[buffer] = request
        return request

    def _started_twice(self, what: str) -> ProtocolError:
        return ProtocolError(f"worker {self.replica.worker} starts {what} that it has started and not waited for")

    def _take(self, which: int, answer: Grant | Ack) -> Grant | Ack:
        """Let the program continue with this answer."""
        self.awaits, self._then = None, False
        del self._under_way[which]
        if type(answer) is Grant:
            self.lease = answer.number
            self.stopping = answer.number == self._stopped
            self.replica.grant(answer.version, answer.steps)
        return answer

    def _buffer_of(self, number: int) -> int:
        for which, request in self._under_way.items():
            if which != FETCH and request.number == number:
                return which
        return NOTHING


def _with(request: R, void: tuple[int, int, int]) -> R:
    stopped, wasted, returned = void
    return request._replace(stopped=stopped, wasted=wasted, returned=returned)
