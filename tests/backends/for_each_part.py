"""Users' algorithms for independent servers, each part of which has the same gate: one that stops, keeps or drops."""

from __future__ import annotations

from dataclasses import replace

from asgd_lab import extending as lab
from tests.backends.stopping import Stopping, StoppingAhead
from tests.outside.fedbuff import FedBuff
from tests.outside.ringmaster import Ringmaster


class Stops(Stopping):
    """Stops work on old versions, of the first part."""

    one_server = False


class StopsAhead(StoppingAhead):
    """The same, with pushes and fetches in flight."""

    one_server = False


class Keeps(FedBuff):
    """Keeps pushes of each part until there are k."""

    one_server = False


class Drops(Ringmaster):
    """Drops pushes of each part that are older than `limit` versions of it."""

    one_server = False


class Leases(lab.Ruled):
    """Asks for minibatches and for parameters apart from one another."""

    one_server = False

    def program(self, replica: lab.Replica) -> lab.Program:
        fetch, train, push = lab.Fetch(replica, lease=False), lab.Train(replica), lab.PushEffect(replica)
        while True:
            yield lab.lease(replica)
            if not replica.granted:
                return
            yield fetch
            replica.adopt()
            yield train
            replica.measure()
            yield push

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        return replace(lab.blocking(self, lab.Gate(), rule), program=self.program)


class NamesAPart(Leases):
    """Pushes a part of a vector that has none."""

    def program(self, replica: lab.Replica) -> lab.Program:
        yield lab.Fetch(replica)
        yield lab.PushEffect(replica, part=0)
