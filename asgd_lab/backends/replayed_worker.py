"""A worker of a recorded run, executed again up to the end of its record."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from asgd_lab.backends.build import Worker
from asgd_lab.backends.event_log import Kind, Row
from asgd_lab.backends.failing import minibatch_failed
from asgd_lab.protocol.effects import FETCH, Train
from asgd_lab.protocol.messages import FetchRequest, Grant, Leave, PushRequest, Request, Stop
from asgd_lab.protocol.replica import Replica


class Differs(Exception):
    """The repetition differs from the record."""


class StoppedLease(NamedTuple):
    """The worker's own facts on a stop that it heard in time."""

    wasted: int  # its unpushed minibatches at the stop
    pushes: int  # and the number of its last push before


def stopped_leases(past: Sequence[Row]) -> dict[tuple[int, int], dict[int, StoppedLease]]:
    """By worker and incarnation, and then by number, the recorded leases that were stopped.

    The message that reports a stop may overtake pushes sent before it. But between the last Train of a lease and the
    next fetch the worker takes an answer, unless it had sent all its pushes before: so pushes with an earlier
    `received_ns` were sent before.
    """
    pushes: dict[int, list[Row]] = {}
    for row in past:
        if row.kind == Kind.PUSH:
            pushes.setdefault(row.worker, []).append(row)
    found: dict[tuple[int, int], dict[int, StoppedLease]] = {}
    for row in past:
        if row.stopped:
            last = row.number - 1
            if row.kind == Kind.FETCH:
                of_worker, told = pushes.get(row.worker, []), (row.incarnation, row.received_ns)
                before = bisect_left(of_worker, told, key=lambda push: (push.incarnation, push.received_ns))
                last = of_worker[before - 1].number if before else 0
            lease = StoppedLease(row.wasted, last)
            found.setdefault((row.worker, row.incarnation), {})[row.stopped] = lease
    return found


class ReplayedWorker:
    """One life of a worker, with its `stopped` leases by number. `stops` are those that the server sent."""

    def __init__(
        self, worker: Worker, stopped: Mapping[int, StoppedLease], point: Callable[[Replica, Grant], None],
        minibatch: Callable[[int, int, int, float, float], None],
    ) -> None:  # fmt: skip
        self.learner, self.replica, self.client = worker.learner, worker.replica, worker.client
        self.stops: dict[int, Stop] = {}
        self._stopped, self._point, self._minibatch = stopped, point, minibatch
        self._sent: dict[
            tuple[type, int, int], Request
        ] = {}  # not met in the record yet: requests may overtake each other

    def run_until(self, recorded: Request) -> Request:
        """Advance until this request is sent; return the repeated request."""
        key = type(recorded), recorded.number, recorded.part
        while key not in self._sent:
            self._advance(f"the record has {name(recorded)}")
        return self._sent.pop(key)

    def run_out(self) -> None:
        """Advance to the program's end."""
        while (step := self.client.advance()) is not None:
            if type(step) is Leave:
                return
            if type(step) in (Train, FetchRequest, PushRequest):
                raise Differs(f"it goes on with {type(step).__name__}, and the record has its end")
        raise Differs("it waits for an answer, and the record has its end")

    def rest(self) -> None:
        """Advance until it waits for a fetch alone, between two rounds."""
        while self.client.awaits != FETCH:
            self._advance("the record goes on with it after a checkpoint")

    def _advance(self, expected: str) -> None:
        waited = self.client.awaits
        step = self.client.advance()
        if step is None:
            if waited is None:  # the program has just begun to wait; the caller decides
                return
            raise Differs(f"it waits for {'fetch' if waited < 0 else 'push'}, and {expected}")
        if type(step) is Leave:
            raise Differs(f"its program ends, and {expected}")
        if type(step) is Train:
            self._train()
        elif type(step) is FetchRequest or type(step) is PushRequest:
            self._sent[type(step), step.number, step.part] = step
        elif type(step) is Grant:
            self._point(self.replica, step)

    def _train(self) -> None:
        """Take the minibatches of a Train; if its lease was stopped, the recorded number of them."""
        replica, client = self.replica, self.client
        taken = replica.steps
        wasted, pushes = self._stopped.get(client.lease, (0, -1))
        if pushes == replica.sequence and wasted <= replica.unpushed + taken:
            if client.lease not in self.stops or wasted < replica.unpushed:
                raise Differs(f"the record has {wasted} minibatches of lease {client.lease}, as if it had been stopped")
            taken = wasted - replica.unpushed
            client.hear(self.stops[client.lease])
        loss_sum = error_sum = 0.0
        for step in range(replica.minibatches, replica.minibatches + taken):
            try:
                loss, error = self.learner.minibatch(step)
            except Exception as raised:
                raise minibatch_failed(replica.worker, step, raised) from raised
            self._minibatch(replica.sequence + 1, replica.worker, step, loss, error)
            loss_sum += loss
            error_sum += error
        client.trained(loss_sum, error_sum, taken)


def name(request: Request) -> str:
    """The request's name in messages."""
    return f"{'fetch' if isinstance(request, FetchRequest) else 'push'} {request.number}"
