"""Worker programs: the papers' pseudo-code as generators that yield effects. All arithmetic is the replica's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.effects import Effect, Fetch, Program, Push, Start, Train, Wait
from asgd_lab.protocol.messages import ALL
from asgd_lab.protocol.replica import Replica


def coupled(replica: Replica) -> Program:
    """GPU A-SGD (Paine et al. 2013, section 3): fetch, n_sync local steps, push their change, repeat.

    Lock-step and bounded staleness run the same program: the server decides who waits.
    """
    fetch, train = Fetch(replica), Train(replica)
    push = Push(replica, then=fetch)
    while True:
        yield fetch
        if not replica.granted:
            return
        replica.adopt()
        yield train
        if replica.unpushed:  # else the server has stopped this lease
            replica.measure()
            yield push


def uncoupled(replica: Replica, n_push: int) -> Program:
    """DistBelief's n_fetch != n_push (Dean et al. 2012, Algorithm 1.1), with blocking communication.

    The grant states the minibatches between fetches; a push follows every `n_push` of them, and a last one carries the
    remaining work when the budget is used up.
    """
    fetch, train, push = Fetch(replica), Train(replica), Push(replica)
    while True:
        yield fetch
        if replica.granted:
            replica.adopt()
        elif replica.unpushed:
            replica.measure()
            yield push
        else:
            return
        while replica.granted:
            replica.steps = min(replica.granted, n_push - replica.unpushed)
            yield train
            if replica.unpushed == n_push:
                replica.measure()
                yield push


def overlapped(replica: Replica, n_push: int, depth: int) -> Program:
    """DistBelief's Downpour (Dean et al. 2012, Algorithm 1.1), with fetches and pushes that do not block.

    The next center is in flight while the minibatches of this one are taken; up to `depth` pushes are in flight, each
    from a buffer of its own. A worker without a lease pushes its remaining work, and then fetches once more, blocking.
    """
    fetch, train = Fetch(replica), Train(replica)
    ask, receive = Start(fetch), Wait(fetch)
    pushes = [Push(replica, buffer) for buffer in range(depth)]
    frees, sends = [Wait(push) for push in pushes], [Start(push) for push in pushes]
    turn = 0
    while True:
        yield fetch
        if not replica.granted:
            break
        while replica.granted:
            if replica.unpushed:  # `adopt` keeps this work, in the buffer of the next push
                yield frees[turn]
            replica.adopt()
            yield ask
            while replica.granted:
                replica.steps = min(replica.granted, n_push - replica.unpushed)
                yield train
                if replica.unpushed == n_push:
                    yield frees[turn]
                    replica.measure()
                    yield sends[turn]
                    turn = (turn + 1) % depth
                    replica.turn(turn)
            yield receive
        if replica.unpushed:
            yield frees[turn]
            replica.measure()
            yield sends[turn]
            turn = (turn + 1) % depth
            replica.turn(turn)
        yield from frees  # a blocking fetch may wait long, and the server accepts no push of its worker meanwhile


def in_parts(program: Program, worker: int, parts: int, apart: bool) -> Program:
    """The program, with an exchange of each part in place of one of the whole vector.

    The lease comes with part 0. Workers send their pushes from different parts on. Where the parts are independent
    servers (`apart`), a program may not name one: ProtocolError.

    After a stop it waits for the pushes of single parts that the program has begun: the next request reports the
    minibatches that not all parts will get, and the server must have heard of those that some parts have.
    """
    order = [(worker + index) % parts for index in range(parts)]
    fetches: dict[Fetch, list[Fetch]] = {}
    pushes: dict[Push, list[Push]] = {}
    single: dict[Push, Wait] = {}
    for effect in program:
        if isinstance(effect, Train):
            replica, steps = effect.replica, effect.replica.steps
            yield effect
            if steps and not replica.unpushed:  # it was stopped
                yield from single.values()
            continue
        exchange = effect.effect if isinstance(effect, Start | Wait) else effect
        if isinstance(exchange, Fetch) and exchange.part == ALL:
            if exchange not in fetches:
                fetches[exchange] = [
                    Fetch(exchange.replica, part, exchange.lease and not part) for part in reversed(range(parts))
                ]
            yield from _all(effect, fetches[exchange])
        elif isinstance(exchange, Push) and exchange.part == ALL:
            if exchange not in pushes:
                pushes[exchange] = [Push(exchange.replica, exchange.buffer, part=part) for part in order]
            yield from _all(effect, pushes[exchange])
        elif apart and isinstance(exchange, Fetch | Push) and exchange.part >= 0:
            raise ProtocolError(f"worker {worker}'s program names part {exchange.part} of independent servers")
        else:
            if isinstance(exchange, Push):
                single.setdefault(exchange, Wait(exchange))
            yield effect


def _all(effect: Effect, each: Sequence[Fetch] | Sequence[Push]) -> Iterator[Effect]:
    """The effects in the place of one: starts, waits, or both; the last of a blocking one blocks."""
    if not isinstance(effect, Wait):
        blocks = not isinstance(effect, Start)
        for one in each[: len(each) - blocks]:
            yield Start(one)
        if blocks:
            yield each[-1]
    if not isinstance(effect, Start):
        for one in each[:-1] if not isinstance(effect, Wait) else each:
            yield Wait(one)
