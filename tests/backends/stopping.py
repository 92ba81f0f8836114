"""An algorithm that stops: as asgd, but a version ends the leases on versions that are older by `patience`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from asgd_lab.algorithms import Apart, Downpour, Ruled
from asgd_lab.algorithms.base import Links, Push
from asgd_lab.algorithms.rules import Scale
from asgd_lab.configuration import Count, Positive
from asgd_lab.protocol import gates
from asgd_lab.protocol.algorithms import Algorithm, blocking
from asgd_lab.protocol.effects import Fetch, Program, Start, Train, Wait, lease
from asgd_lab.protocol.effects import Push as PushEffect
from asgd_lab.protocol.gates import View
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.rules import Rule
from asgd_lab.protocol.vectors import Anchored


class Impatient(gates.Gate):
    """Stops who works on a version that is older than `patience`."""

    patience: int

    def stops(self, server: View) -> Iterable[int]:
        old = server.version - self.patience
        return [worker for worker in server.owing if server.member(worker).lease_version < old]


class Stopping(Apart):
    """As asgd with stops."""

    rule: Links = [Scale(name="scale")]  # noqa: RUF012
    push: Push = "delta"
    patience: Count = 1

    def sentence(self, rule: Rule) -> Algorithm:
        """Its gate."""
        return blocking(self, Impatient(self.patience), rule)


class StoppingAhead(Stopping):
    """As downpour with stops."""

    overlaps = True

    depth: Count = 2

    def sentence(self, rule: Rule) -> Algorithm:
        """Its gate in place of downpour's."""
        keys = {"name": "downpour", "n_fetch": self.n_fetch, "n_push": self.n_push, "depth": self.depth}
        return dataclasses.replace(Downpour.model_validate(keys).sentence(rule), gate=Impatient(self.patience))


class TimeLimit(gates.Gate):
    """Stops leases that last `limit_ns`; the server wakes itself to see to that."""

    limit_ns: int

    def stops(self, server: View) -> Iterable[int]:
        return [worker for worker in server.owing if server.now_ns >= server.member(worker).lease_ns + self.limit_ns]

    def wake_ns(self, server: View) -> int | None:
        leases = [server.member(worker) for worker in server.owing]
        return min((each.lease_ns + self.limit_ns for each in leases if each.stopped != each.lease), default=None)


class Limited(Stopping):
    """As asgd with a time limit on each lease."""

    limit_s: Positive = 0.045
    """Of a lease."""

    def sentence(self, rule: Rule) -> Algorithm:
        """Its gate."""
        return blocking(self, TimeLimit(int(self.limit_s * 1e9)), rule)


class Fragments(Ruled):
    """Fragments pushed in turn, each while the next minibatches are taken, with stops."""

    parts: Count = 2
    patience: Count = 3

    def sentence(self, rule: Rule) -> Algorithm:
        """Its gate and its program."""
        said = blocking(self, Impatient(self.patience), rule)
        return dataclasses.replace(said, program=self.program, vectors=Anchored, parts=self.parts)

    def program(self, replica: Replica) -> Program:
        """After a stop, nothing is unpushed, and the program asks for the next lease."""
        train, ask, places = Train(replica), lease(replica), replica.parts
        pushes = [PushEffect(replica, part=part) for part in range(self.parts)]
        fetches = [Fetch(replica, part, lease=False) for part in range(self.parts)]
        yield Fetch(replica)
        replica.adopt()
        turn = 0
        while True:
            if not replica.granted:
                yield ask
            if replica.granted:
                replica.steps = min(2, replica.granted)
                yield train
                if not replica.unpushed:
                    continue
            yield Wait(pushes[turn])
            yield Wait(fetches[turn])
            if not any(place.unpushed for place in places):
                return
            replica.merge(turn, own=0.5, center=0.5)
            turn = (turn + 1) % self.parts
            if places[turn].unpushed:
                replica.measure(turn)
                yield Start(pushes[turn])
                yield Start(fetches[turn])
