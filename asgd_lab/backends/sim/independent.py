"""Independent servers (DistBelief's shards): each serves its slices of exchanges in its own order."""

from __future__ import annotations

from collections.abc import Callable

from asgd_lab.backends.sim.clock import Clock
from asgd_lab.backends.sim.exchange import Slice
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.rows import Rows
from asgd_lab.backends.sim.shards import Shards
from asgd_lab.protocol.messages import DROPPED, Ack, Answer


class Independent:
    """Combines their answers: a push ends when all have served it, with the first server's answer."""

    def __init__(
        self, shards: Shards, rows: Rows, clock: Clock, deliver: Callable[[list[Answer]], None],
        pushed: Callable[[list[Answer]], None],
    ) -> None:  # fmt: skip
        """`deliver` gets answers to fetches, `pushed` the answer to a push that all servers have served."""
        self._shards, self._rows, self._clock, self._deliver, self._pushed = shards, rows, clock, deliver, pushed
        self.partly_applied = 0  # pushes in a version of the first server, but not of all servers

    def served(self, slice: Slice) -> None:
        """A server has served its slice of a push or a fetch."""
        exchange, index, now = slice.of, slice.index, self._clock.now
        server = self._shards.servers[index]
        if type(exchange) is Push:
            request = exchange.request
            self._shards.take_from(request.worker, request.buffer)
            self._applied(exchange, slice, server.hear(
                request if not index else request._replace(base=request.bases[index - 1]), now
            ))  # fmt: skip
        elif type(exchange) is Fetch:
            self._rows.grant_slice(slice)
            answers = server.hear(exchange.request, now)
            if index:
                exchange.release_slice(index, answers[0])  # type: ignore[arg-type]
            else:
                self._deliver(answers)

    def _applied(self, push: Push, slice: Slice, answers: list[Answer]) -> None:
        now, index = self._clock.now, slice.index
        for answer in answers:
            if type(answer) is not Ack:
                self._deliver([answer])
                continue
            self._shards.staleness[index][answer.staleness] += answer.version != DROPPED
            self._rows.apply(self._rows.service(slice), answer)
            if index == 0:
                push.answer = answer
                self.partly_applied += answer.version != DROPPED
        push.left -= 1
        if not push.left:
            answer = push.answer
            self.partly_applied -= answer.version != DROPPED
            push.served, push.started = now, max(push.started, push.arrived)  # the last slice counts
            self._pushed([answer])
