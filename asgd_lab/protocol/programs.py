"""Worker programs: the papers' pseudo-code as generators that yield effects. All arithmetic is the replica's."""

from __future__ import annotations

from asgd_lab.protocol.effects import Fetch, Program, Push, Start, Train, Wait
from asgd_lab.protocol.replica import Replica


def coupled(replica: Replica) -> Program:
    """GPU A-SGD (Paine et al. 2013, section 3): fetch, n_sync local steps, push what they changed, go on.

    Lock-step and bounded staleness run this same program: who waits is the server's business.
    """
    fetch, train = Fetch(replica), Train(replica)
    push = Push(replica, then=fetch)
    while True:
        yield fetch
        if not replica.granted:
            return
        replica.adopt()
        yield train
        if replica.unpushed:  # else the server has stopped it
            replica.measure()
            yield push


def uncoupled(replica: Replica, n_push: int) -> Program:
    """DistBelief's n_fetch != n_push (Dean et al. 2012, Algorithm 1.1), with blocking communication.

    The grant says how many minibatches lie between fetches; a push follows every `n_push` of them, and one more carries
    what is left when there is nothing more to do.
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
    """DistBelief's Downpour (Dean et al. 2012, Algorithm 1.1), whose fetches and pushes do not block.

    The next center is on its way while the minibatches of this one are taken; up to `depth` pushes are under way, each
    from a buffer of its own. Who has nothing left to do hands in its rest, and asks once more, without haste.
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
            if replica.unpushed:  # adopting keeps this work, in the buffer of the next push
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
        yield from frees  # the server may keep who asks without haste waiting, and takes no push meanwhile
