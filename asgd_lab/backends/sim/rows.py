"""What a simulation writes into its tables: a row an effect, and a row for each thing inside it that took time."""

from __future__ import annotations

from collections.abc import Sequence

from asgd_lab.backends.sim.exchange import Exchange, Slice
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.push import Push
from asgd_lab.hardware.costs import Costs
from asgd_lab.protocol.messages import Ack
from asgd_lab.protocol.replica import Replica
from asgd_lab.record.columns import KINDS
from asgd_lab.record.run import RunDirectory

FETCH, TRAIN, PUSH, APPLY, GRANT, UP, DOWN, TO_HOST, TO_DEVICE = (
    KINDS.index(kind) for kind in ("fetch", "train", "push", "apply", "grant", "up", "down", "to_host", "to_device")
)
SERVER = -1  # the worker of a server's row
NOT_OF_ONE = -1  # the shard of a worker's row


class Rows:
    """The rows of the rounds that the run directory keeps."""

    def __init__(self, record: RunDirectory, costs: Costs, size_bytes: int) -> None:
        self.keeps = record.recording.keep_round
        self.any = record.recording.every > 0
        self._add, self._minibatches = record.effects.add, record.minibatches
        self._distances = record.distances
        self._costs, self._size = costs, size_bytes

    def train(self, replica: Replica, begun: int, ended: int) -> None:
        """A Train that is over, and counted."""
        round, steps = replica.sequence + 1, replica.steps
        if self.keeps(round):
            row = (replica.worker, round, TRAIN, begun, ended, 0, replica.version, -1, steps, 0, NOT_OF_ONE)
            self._add((*row, replica.worker, replica.incarnation))

    def minibatches(
        self, replica: Replica, begun: int, ended: int, ends_ns: Sequence[int], losses: Sequence[float],
        errors: Sequence[float],
    ) -> None:  # fmt: skip
        """Those of a Train that is over, and not counted yet."""
        if self.keeps(replica.sequence + 1):
            stretch = (ended - begun) / ends_ns[-1]  # more than 1 where the device was shared
            self._minibatches.extend(
                (replica.worker, step, begun + round(end * stretch), loss, error)
                for step, (end, loss, error) in enumerate(
                    zip(ends_ns, losses, errors, strict=True), replica.minibatches
                )
            )

    def fetch(self, fetch: Fetch) -> None:
        """A fetch that is done, and what it passed."""
        replica = fetch.worker.replica
        worker, round = replica.worker, replica.sequence + 1
        if not self.keeps(round):
            return
        version, steps = fetch.answer.version, fetch.answer.steps
        size, who = self._size if steps else 0, (NOT_OF_ONE, worker, replica.incarnation)
        waited = fetch.released - fetch.arrived - (fetch.served - fetch.started)
        self._add((worker, round, FETCH, fetch.begun, fetch.done, waited, version, -1, steps, size, *who))
        landed, copy_ns = fetch.landed, self._costs.to_device_ns
        if steps and landed > fetch.released + fetch.route.latency_ns:
            self._add((worker, round, DOWN, fetch.released, landed, 0, version, -1, 0, size, *who))
        if steps and copy_ns:
            self._add((worker, round, TO_DEVICE, landed, landed + copy_ns, 0, version, -1, 0, size, *who))

    def push(self, push: Push) -> None:
        """A push that is done, and what it passed."""
        grant, worker = push.answer, push.worker.number
        round, size, sent = grant.number, self._size, push.sent
        who = (NOT_OF_ONE, worker, grant.incarnation)
        if not self.keeps(round):
            return
        waited = push.released - push.arrived - (push.served - push.started)
        row = (PUSH, push.begun, push.done, waited, grant.version, grant.staleness, grant.steps, size, *who)
        self._add((worker, round, *row))
        if push.arrived > sent + push.route.latency_ns:
            self._add((worker, round, UP, sent, push.arrived, 0, -1, -1, 0, size, *who))
        if self._costs.to_host_ns:
            self._add((worker, round, TO_HOST, sent - self._costs.to_host_ns, sent, 0, -1, -1, 0, size, *who))

    def apply(self, push: Push, grant: Ack) -> None:
        """The server's side of a push."""
        if push.slices:
            for slice in push.slices:
                self.apply_slice(slice, grant)
        elif self.keeps(grant.number):
            started = push.started
            row = (APPLY, started, push.served, started - push.arrived, grant.version, grant.staleness, grant.steps)
            self._add((SERVER, grant.number, *row, self._size, 0, grant.worker, grant.incarnation))

    def distance(self, push: Push, grant: Ack) -> None:
        """How far what it started from was when it was applied."""
        assert self._distances is not None
        worker = push.worker.number
        self._distances.add((push.served, worker, grant.version, grant.staleness, push.distance))

    def apply_slice(self, slice: Slice, grant: Ack) -> None:
        """One server's side of its slice of a push."""
        if self.keeps(grant.number):
            started = slice.started
            row = (APPLY, started, slice.served, started - slice.arrived, grant.version, grant.staleness, grant.steps)
            who = (slice.index, grant.worker, grant.incarnation)
            self._add((SERVER, grant.number, *row, round(slice.route.bytes), *who))

    def grant(self, fetch: Fetch) -> None:
        """The server's side of a fetch, where it takes time."""
        if fetch.slices:
            for slice in fetch.slices:
                self.grant_slice(slice)
        else:
            self._grant(fetch, fetch, self._size, 0)

    def grant_slice(self, slice: Slice) -> None:
        """One server's side of its slice of a fetch."""
        self._grant(slice.of, slice, round(slice.route.bytes), slice.index)

    def _grant(self, of: Exchange, part: Exchange | Slice, size: int, shard: int) -> None:
        replica, started, served = of.worker.replica, part.started, part.served
        number = replica.sequence + 1
        if started < served and self.keeps(number):
            who = (shard, replica.worker, replica.incarnation)
            self._add((SERVER, number, GRANT, started, served, started - part.arrived, -1, -1, 0, size, *who))
