"""The rows of a simulation's tables: one per effect, and one for each part of an effect that took time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.push import Push
from asgd_lab.protocol.messages import NOWHERE, Ack
from asgd_lab.protocol.replica import Replica
from asgd_lab.record.columns import KINDS
from asgd_lab.record.run import RunDirectory

FETCH, TRAIN, PUSH, APPLY, GRANT, UP, DOWN, TO_HOST, TO_DEVICE = (
    KINDS.index(kind) for kind in ("fetch", "train", "push", "apply", "grant", "up", "down", "to_host", "to_device")
)
SERVER = -1  # the worker of a server's row
NOT_OF_ONE = -1  # in place of a part: a worker's row of the whole vector


class Service(NamedTuple):
    """One server's service of a push, or of its slice."""

    shard: int
    arrived: int
    started: int
    served: int
    size_bytes: int


class Rows:
    """The rows of the rounds that the run directory keeps."""

    def __init__(self, record: RunDirectory) -> None:
        self.keeps = record.recording.keep_round
        self.any = record.recording.every > 0
        self._add, self._minibatches = record.effects.add, record.minibatches
        self.distances = record.distances

    def train(self, replica: Replica, steps: int, begun: int, ended: int) -> None:
        """Write a counted Train of so many minibatches."""
        round = replica.sequence + 1
        if self.keeps(round):
            row = (replica.worker, round, TRAIN, begun, ended, 0, replica.version, -1, steps, 0, NOT_OF_ONE)
            self._add((*row, replica.worker, replica.incarnation))

    def minibatches(
        self, replica: Replica, begun: int, ended: int, ends_ns: Sequence[int], losses: Sequence[float],
        errors: Sequence[float],
    ) -> None:  # fmt: skip
        """Write the minibatches of a Train that is over and not counted yet."""
        if self.keeps(replica.sequence + 1):
            stretch = (ended - begun) / ends_ns[len(losses) - 1]  # more than 1 where the device was shared
            self._minibatches.extend(
                (replica.worker, step, begun + round(end * stretch), loss, error)
                for step, (end, loss, error) in enumerate(
                    zip(ends_ns, losses, errors, strict=False), replica.minibatches
                )
            )

    def fetch(self, fetch: Fetch) -> None:
        """Write a finished fetch and its stages."""
        replica = fetch.worker.replica
        worker, round = replica.worker, replica.sequence + 1
        if not self.keeps(round):
            return
        version, steps, part = fetch.answer.version, fetch.answer.steps, fetch.answer.part
        moved = fetch.answer.slot != NOWHERE
        size, who = fetch.size_bytes if moved else 0, (part if part >= 0 else NOT_OF_ONE, worker, replica.incarnation)
        waited = fetch.released - fetch.arrived - (fetch.served - fetch.started)
        self._add((worker, round, FETCH, fetch.begun, fetch.done, waited, version, -1, steps, size, *who))
        landed, copy_ns = fetch.landed, fetch.to_device_ns
        if moved and landed > fetch.released + fetch.route.latency_ns:
            self._add((worker, round, DOWN, fetch.released, landed, 0, version, -1, 0, size, *who))
        if moved and copy_ns:
            self._add((worker, round, TO_DEVICE, landed, landed + copy_ns, 0, version, -1, 0, size, *who))

    def push(self, push: Push) -> None:
        """Write a finished push and its stages."""
        grant, worker = push.answer, push.worker.number
        round, size, sent = grant.number, push.request.size_bytes, push.sent
        who = (grant.part if grant.part >= 0 else NOT_OF_ONE, worker, grant.incarnation)
        if not self.keeps(round):
            return
        waited = push.released - push.arrived - (push.served - push.started)
        row = (PUSH, push.begun, push.done, waited, grant.version, grant.staleness, grant.steps, size, *who)
        self._add((worker, round, *row))
        if push.arrived > sent + push.route.latency_ns:
            self._add((worker, round, UP, sent, push.arrived, 0, -1, -1, 0, size, *who))
        if push.to_host_ns:
            self._add((worker, round, TO_HOST, sent - push.to_host_ns, sent, 0, -1, -1, 0, size, *who))

    def services(self, exchange: Push | Fetch, size_bytes: int) -> list[Service]:
        """The services of an exchange that carries so many bytes, one per server."""
        if exchange.slices:
            return [
                Service(slice.index, slice.arrived, slice.started, slice.served, round(slice.route.bytes))
                for slice in exchange.slices
            ]
        part = max(0, exchange.request.part)
        return [Service(part, exchange.arrived, exchange.started, exchange.served, size_bytes)]

    def apply(self, service: Service, ack: Ack) -> None:
        """Write one server's row of a push with this end."""
        if self.keeps(ack.number):
            shard, arrived, started, served, size = service
            row = (APPLY, started, served, started - arrived, ack.version, ack.staleness, ack.steps, size)
            self._add((SERVER, ack.number, *row, shard, ack.worker, ack.incarnation))

    def distance(self, served: int, distance: float, ack: Ack) -> None:
        """Write the distance between a push's center and the version that it was applied to."""
        assert self.distances is not None
        self.distances.add((served, ack.worker, ack.version, ack.staleness, distance))

    def grant(self, fetch: Fetch) -> None:
        """Write the servers' rows of a fetch, if its service took time."""
        replica = fetch.worker.replica
        number, who = replica.sequence + 1, (replica.worker, replica.incarnation)
        if self.keeps(number):
            for shard, arrived, started, served, size in self.services(fetch, fetch.size_bytes):
                if started < served:
                    row = (SERVER, number, GRANT, started, served, started - arrived, -1, -1, 0, size, shard)
                    self._add((*row, *who))
