"""Who gives no sign of life: workers that should be doing something, and have not shown it for longer than is likely.

A worker shows it on the board after every minibatch and every answer it takes. Nobody guesses how long a minibatch
takes: the limit is a multiple of the longest one that any worker has shown, or what the scenario says.
"""

from __future__ import annotations

from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.clock import now_ns
from asgd_lab.backends.process.plan import Plan
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.protocol.server import Server

FACTOR = 50  # times the longest minibatch
LEAST_NS = 10 * 10**9
FIRST_NS = 120 * 10**9  # before anybody has shown one


class Vigil:
    """The server's watch over its members."""

    def __init__(self, plan: Plan, server: Server) -> None:
        self._board, self._server = plan.board, server
        faults = plan.scenario.faults
        stated = None if faults is None else faults.silent_s
        self._stated_ns = None if stated is None else nanoseconds(stated)
        workers = plan.scenario.workers
        self._answered_ns = [now_ns()] * workers
        self._asked = [0] * workers  # requests that wait for an answer
        self._since_ns = self._last_ns = now_ns()  # since when this process has been watching without a break
        self.due_ns = now_ns() + self._limit_ns() // 4

    def _limit_ns(self) -> int:
        """Longer than this nobody is silent who is well."""
        if self._stated_ns is not None:
            return self._stated_ns
        longest = int(self._board.worker[:, Board.LONGEST].max())
        return max(LEAST_NS, FACTOR * longest) if longest else FIRST_NS

    def begins(self, worker: int) -> None:
        """A life of it, in which nothing has been asked."""
        self._asked[worker] = 0
        self._answered_ns[worker] = now_ns()

    def asked(self, worker: int) -> None:
        """It has sent a request: until it is answered it waits for the server, not the server for it."""
        self._asked[worker] += 1

    def answered(self, worker: int) -> None:
        """One of its requests."""
        self._asked[worker] = max(0, self._asked[worker] - 1)
        self._answered_ns[worker] = now_ns()

    def silent(self) -> list[int]:
        """The members that have been silent for too long; ask again at `due_ns`."""
        now, limit_ns = now_ns(), self._limit_ns()
        if now - self._last_ns > limit_ns:  # this process itself has been away: it has seen nobody meanwhile
            self._since_ns = now
        self._last_ns = now
        self.due_ns = now + limit_ns // 4
        self._board.server[Board.LIMIT_NS] = limit_ns
        words = self._board.worker
        found = []
        for worker in self._server.members:
            waits = self._asked[worker] and words[worker, Board.STATE] != Board.TRAINING
            shown = max(int(words[worker, Board.SHOWN]), self._answered_ns[worker], self._since_ns)
            if not waits and now - shown > limit_ns:
                found.append(worker)
        return sorted(found)
