"""Failure detection: processes that should be working, and have given no sign of life for too long.

The server watches the workers, and the parent watches the server. A worker's sign of life is a progress word, written
after every minibatch and every answer it takes; the server's is written after every request, and every few seconds
without one. The limit is a multiple of the longest minibatch of any worker so far, or stated by the scenario; for the
server likewise, of the longest request. A watcher that was itself stopped, as in a suspended machine, saw nothing
meanwhile and fails nobody for that time.
"""

from __future__ import annotations

from time import monotonic_ns as now_ns

from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.protocol.server import Server

FACTOR = 50  # times the longest minibatch, or request
LEAST_NS = 10 * 10**9
LEAST_OF_SERVER_NS = 2 * 10**9  # the time to replace a server
FIRST_NS = 120 * 10**9  # before the first minibatch or request, and for accesses to a disk
REST_NS = 2 * 10**9  # between an idle server's signs of life
FUTILE = 5  # kills of a silent server without a version in between, after which the run fails


class _Presence:
    """The start of this process's uninterrupted watch."""

    def __init__(self) -> None:
        self.since_ns = self._last_ns = now_ns()

    def look(self, longest_break_ns: int) -> int:
        """Note that the watcher runs; return the time."""
        now = now_ns()
        if now - self._last_ns > longest_break_ns:
            self.since_ns = now
        self._last_ns = now
        return now


def _stated_ns(plan: Plan) -> int | None:
    faults = plan.scenario.faults
    return None if faults is None or faults.silent_s is None else nanoseconds(faults.silent_s)


def _limit_ns(longest_ns: int) -> int:
    return max(LEAST_NS, FACTOR * longest_ns) if longest_ns else FIRST_NS


class FailureDetector:
    """The server's watch over its members."""

    def __init__(self, plan: Plan, server: Server) -> None:
        self._progress, self._server = plan.transport.words, server
        self._stated_ns = _stated_ns(plan)
        workers = plan.scenario.workers
        self._answered_ns = [now_ns()] * workers
        self._asked = [0] * workers  # requests without an answer
        self._presence = _Presence()
        self.due_ns = now_ns() + self._limit() // 4

    def _limit(self) -> int:
        """The longest silence of a healthy worker."""
        return self._stated_ns or _limit_ns(int(self._progress.worker[:, Words.LONGEST].max()))

    def begins(self, worker: int) -> None:
        """A worker begins a life, without open requests."""
        self._asked[worker] = 0
        self._answered_ns[worker] = now_ns()

    def asked(self, worker: int) -> None:
        """A worker has sent a request: until the answer it waits for the server, and may be silent."""
        self._asked[worker] += 1

    def answered(self, worker: int) -> None:
        """One of a worker's requests was answered."""
        self._asked[worker] = max(0, self._asked[worker] - 1)
        self._answered_ns[worker] = now_ns()

    def silent(self) -> list[int]:
        """The members that have been silent for too long; call it again at `due_ns`."""
        limit_ns = self._limit()
        now = self._presence.look(limit_ns // 2)
        self.due_ns = now + limit_ns // 4
        self._progress.server[Words.LIMIT_NS] = limit_ns
        words = self._progress.worker
        found = []
        for worker in self._server.members:
            waits = self._asked[worker] and words[worker, Words.STATE] != Words.TRAINING
            shown = max(int(words[worker, Words.SHOWN]), self._answered_ns[worker], self._presence.since_ns)
            if not waits and now - shown > limit_ns:
                found.append(worker)
        return sorted(found)


class Heartbeat:
    """The server's sign of life: a word with the time by which a healthy server writes it again."""

    def __init__(self, plan: Plan) -> None:
        self._words = plan.transport.words.of_server()

    def rest(self, patience_s: float | None) -> float:
        """The server waits for requests, at most that long; return the allowed time."""
        rest_s = REST_NS * 1e-9 if patience_s is None else min(patience_s, REST_NS * 1e-9)
        self.busy(int(rest_s * 1e9))
        return rest_s

    def busy(self, for_ns: int = 0) -> None:
        """The server begins an action that takes that long."""
        self._words[Words.HEARD_NS] = now_ns() + for_ns

    def at_disk(self) -> None:
        """The server begins an access to a disk, which may be slow."""
        self.busy(FIRST_NS)

    def served(self) -> None:
        """The server has ended a request."""
        words, now = self._words, now_ns()
        words[Words.LONGEST_SERVICE_NS] = max(words[Words.LONGEST_SERVICE_NS], now - words[Words.HEARD_NS])
        words[Words.HEARD_NS] = now


class ServerFailureDetector:
    """The parent's watch over the server process."""

    def __init__(self, plan: Plan) -> None:
        self._words = plan.transport.words.of_server()
        self._stated_ns = _stated_ns(plan)
        self._presence = _Presence()
        self._in_vain, self._version = 0, -1
        self._killed_ns: int | None = None
        self.begins()

    def begins(self) -> None:
        """A new server process starts; its first sign of life takes a while."""
        self._begun_ns = now_ns()
        self._killed_ns = None
        self.due_ns = self._begun_ns + self._limit() // 4

    def is_killed(self) -> bool:
        """Note that the server was killed, and must end within the limit; return whether it was killed before."""
        before, self._killed_ns = self._killed_ns is not None, now_ns()
        return before

    def _limit(self) -> int:
        if self._stated_ns is not None:
            return max(self._stated_ns, LEAST_OF_SERVER_NS)
        return _limit_ns(self._words[Words.LONGEST_SERVICE_NS])

    def silent_ns(self) -> int | None:
        """The time of the server's silence if that is too long; call it again at `due_ns`."""
        limit_ns = self._limit()
        now = self._presence.look(limit_ns // 2)
        self.due_ns = now + limit_ns // 4
        heard = self._words[Words.HEARD_NS]
        if heard < self._begun_ns:
            heard = self._begun_ns + FIRST_NS
        shown = max(heard if self._killed_ns is None else self._killed_ns, self._presence.since_ns)
        return now - shown if now - shown > limit_ns else None

    def is_futile(self) -> bool:
        """Count a kill for silence; return whether that was one too many."""
        version = self._words[Words.VERSION]
        self._in_vain = self._in_vain + 1 if version == self._version else 1
        self._version = version
        return self._in_vain >= FUTILE
