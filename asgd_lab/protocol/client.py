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
from asgd_lab.protocol.effects import FETCH, MOST_BUFFERS, Effect, Fetch, Program, Push, Start, Train, Wait, exchange_of
from asgd_lab.protocol.messages import NO_PART, Ack, Answer, FetchRequest, Grant, Leave, PushRequest, Request, Stop, new
from asgd_lab.protocol.replica import Replica

R = TypeVar("R", FetchRequest, PushRequest)
Step = Train | FetchRequest | PushRequest | Grant | Ack | Wait | Leave


class Client:
    """The client of one life of a worker."""

    __slots__ = (
        "_answers", "_asked", "_early", "_stopped", "_then", "_under_way", "_void", "awaits", "fetches",
        "lease", "program", "replica", "stopping", "taken",
    )  # fmt: skip

    def __init__(self, replica: Replica, program: Program) -> None:
        self.replica, self.program = replica, program
        self.fetches = 0  # the number of the last one
        self.awaits: int | None = None  # the exchange that the program waits for
        self.taken = FETCH  # the exchange whose answer the program has taken last
        self.stopping = False  # has the current lease been stopped?
        # Requests without an answer: the newest if the program waits for it, and the others by exchange, in the order
        # sent. Most workers have only the former.
        self._asked: Request | None = None
        self._under_way: dict[int, Request] = {}
        self._answers: dict[int, Grant | Ack] = {}  # heard, and not taken by the program yet
        self._then: Fetch | None = None  # the fetch that follows the push that the program waits for, if known
        self._early = False  # has the next fetch been sent already?
        self.lease = 0  # the number of the fetch that the current minibatches were leased with
        self._stopped = 0  # the number of the last stopped lease
        self._void: tuple[int, int, int] | None = None  # of a stopped lease, for the next request

    # ------------------------------------------------------------------ for the carrier

    @staticmethod
    def key(request: Request) -> int:
        """The exchange of a request, as `awaits` and `taken` state it; see `effects.exchange_of`."""
        if type(request) is FetchRequest:
            return exchange_of(True, request.part)
        return exchange_of(False, request.part, request.buffer)  # type: ignore[union-attr]

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
                if not self.replica.steps:
                    continue
                if not self.stopping:
                    return effect  # type: ignore[return-value]
                self.trained(0.0, 0.0, 0)
            elif kind is Push:
                self._asked = push = self._push(effect)  # type: ignore[arg-type]
                self.awaits = effect.exchange  # type: ignore[union-attr]
                self._then = effect.then  # type: ignore[union-attr]
                return push
            elif kind is Fetch:
                if not self._early:
                    self._asked = fetch = self._fetch(effect, ahead=False)  # type: ignore[arg-type]
                    self.awaits = effect.exchange  # type: ignore[union-attr]
                    return fetch
                self._early = False
                self.awaits = FETCH
                if FETCH in self._answers:
                    return self.take(FETCH, self._answers.pop(FETCH))
            else:
                return self._other(effect)
        return None

    def hear(self, answer: Answer) -> bool:
        """True if the program was waiting for this answer, and has taken it.

        Otherwise the answer is kept until the program waits for it, or ignored if it is for another life or repeated.
        """
        _, incarnation, number = answer[:3]
        if incarnation != self.replica.incarnation:
            return False
        kind = type(answer)
        if kind is Stop:
            self._stopped = number
            self.stopping = self.stopping or number == self.lease
            return False
        is_grant = kind is Grant
        if (awaits := self.awaits) is not None:
            request = self._asked or self._under_way[awaits]
            if (
                request.number == number
                and is_grant is (awaits < 0)
                and (
                    NO_PART <= awaits < MOST_BUFFERS or request.part == answer.part  # type: ignore[union-attr]
                )
            ):
                self.take(awaits, answer)  # type: ignore[arg-type]
                return True
        for which, request in self._under_way.items():
            if request.number == number and is_grant is (which < 0) and request.part == answer.part:  # type: ignore[union-attr]
                self._answers[which] = answer  # type: ignore[assignment]
                break
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
        if self._then is None or self._early or FETCH in self._under_way:
            return None
        assert self._asked is not None
        assert self.awaits is not None
        self._under_way[self.awaits], self._asked = self._asked, None
        self._early = True
        self._under_way[FETCH] = fetch = self._fetch(self._then, ahead=False)
        return fetch

    def place(self) -> tuple[list[int], list[float]]:
        """The state of this life, without its tensors, while it waits for a fetch alone; the fetch counts as unsent."""
        whole, sums = self.replica.place()
        fetch = self._asked or self._under_way[FETCH]
        return [*whole, self.fetches - 1, fetch.stopped, fetch.wasted, fetch.returned], sums

    def resume(self, whole: Sequence[int], sums: Sequence[float]) -> None:
        """Restore the `place` of another client of the same life; the program begins with the unsent fetch."""
        *place, fetches, stopped, wasted, returned = [*whole, 0, 0, 0][:10]  # earlier versions had no stops
        self.replica.resume(place, sums)
        self.fetches = fetches
        self._void = (stopped, wasted, returned) if stopped else None

    def unanswered(self) -> list[Request]:
        """The requests without an answer, in the order sent, to resend to a new server."""
        earlier = [request for which, request in self._under_way.items() if which not in self._answers]
        return earlier if self._asked is None else [*earlier, self._asked]

    def is_under_way(self, which: int) -> bool:
        """Whether the fetch, or the push from this buffer, was sent and its answer is not taken by the program yet."""
        return which in self._under_way or (self._asked is not None and which == self.awaits)

    @property
    def unreported(self) -> int:
        """The wasted minibatches of a stopped lease, which the next request will report."""
        return 0 if self._void is None else self._void[1]

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
        if type(effect) is Start:
            request: Request = self._fetch(exchange, ahead=True) if type(exchange) is Fetch else self._push(exchange)  # type: ignore[arg-type]
            self._under_way[exchange.exchange] = request
            return request
        which = exchange.exchange
        if which not in self._under_way:
            return effect  # type: ignore[return-value]
        self.awaits = which
        answer = self._answers.pop(which, None)
        return None if answer is None else self.take(which, answer)

    def _fetch(self, effect: Fetch, ahead: bool) -> FetchRequest:
        which = effect.exchange
        if which in self._under_way:
            raise self._started_twice("a fetch")
        self.fetches = number = self.fetches + 1
        replica = self.replica
        request = new(
            FetchRequest, (replica.worker, replica.incarnation, number, ahead, effect.part, effect.lease, 0, 0, 0)
        )
        if self._void is not None:
            request, self._void = _with(request, self._void), None
        return request

    def _push(self, effect: Push) -> PushRequest:
        which = effect.exchange
        if which in self._under_way:
            raise self._started_twice(f"a push from buffer {effect.buffer}")
        request = self.replica.arriving(effect.part)
        if self._void is not None:
            request, self._void = _with(request, self._void), None
        return request

    def _started_twice(self, what: str) -> ProtocolError:
        return ProtocolError(f"worker {self.replica.worker} starts {what} that it has started and not waited for")

    def take(self, which: int, answer: Grant | Ack) -> Grant | Ack:
        """Let the program continue with this answer to the exchange that it waits for.

        For a carrier that knows which exchange an answer belongs to; others let the client `hear` it.
        """
        self.awaits = self._then = None
        self.taken = which
        request, self._asked = self._asked, None
        if request is None:
            request = self._under_way.pop(which)
        if which < 0:
            _, _, number, version, steps, _, part = answer  # type: ignore[misc]
            if request.lease:  # type: ignore[union-attr]
                self.lease = number
                self.stopping = number == self._stopped
                if which == FETCH:
                    self.replica.grant(version, steps)
                    return answer
            self.replica.grant_part(part, version, steps, request.lease)  # type: ignore[union-attr]
        return answer


def _with(request: R, void: tuple[int, int, int]) -> R:
    stopped, wasted, returned = void
    return request._replace(stopped=stopped, wasted=wasted, returned=returned)
