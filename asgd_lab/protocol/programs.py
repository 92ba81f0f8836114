"""Worker programs: the papers' pseudo-code as generators that yield effects. All arithmetic is the replica's."""

from __future__ import annotations

from asgd_lab.protocol.effects import Fetch, Program, Push, Train
from asgd_lab.protocol.replica import Replica


def coupled(replica: Replica) -> Program:
    """GPU A-SGD (Paine et al. 2013, section 3): fetch, n_sync local steps, push what they changed, go on.

    Lock-step and bounded staleness run this same program: who waits is the server's business.
    """
    fetch, train, push = Fetch(replica), Train(replica), Push(replica)
    while True:
        yield fetch
        if not replica.granted:
            return
        replica.adopt()
        yield train
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
