"""Who gives no sign of life: processes that should be doing something, and have not shown it for longer than is likely.

The server watches the workers, and the parent watches the server. A worker shows itself by a progress word after every
minibatch and every answer it takes; the server after every request and, when there is none, every few seconds. Nobody
guesses how long a minibatch takes: the limit is a multiple of the longest one that any worker has shown, or what the
scenario says; the server's likewise, of the longest request. Whoever watches and has itself been away, as all are when
the machine was suspended, has seen nobody meanwhile and blames nobody.
"""

from __future__ import annotations

from time import monotonic_ns as now_ns

from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.protocol.server import Server

FACTOR = 50  # times the longest minibatch, or request
LEAST_NS = 10 * 10**9
LEAST_OF_SERVER_NS = 2 * 10**9  # it takes that long to replace one
FIRST_NS = 120 * 10**9  # before anybody has shown one; and for what waits for a disk
REST_NS = 2 * 10**9  # after which an idle server shows itself
FUTILE = 5  # times that a server is killed for its silence without a version in between


class _Presence:
    """Since when this process has been watching without a break."""

    def __init__(self) -> None:
        self.since_ns = self._last_ns = now_ns()

    def look(self, longest_break_ns: int) -> int:
        """It is here; when."""
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
        self._asked = [0] * workers  # requests that wait for an answer
        self._presence = _Presence()
        self.due_ns = now_ns() + self._limit() // 4

    def _limit(self) -> int:
        """Longer than this nobody is silent who is well."""
        return self._stated_ns or _limit_ns(int(self._progress.worker[:, Words.LONGEST].max()))

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
    """The server's sign of life: one word, by when it shows itself again if it is well."""

    def __init__(self, plan: Plan) -> None:
        self._words = plan.transport.words.of_server()

    def rest(self, patience_s: float | None) -> float:
        """It waits for requests, at most so long; how long it may."""
        rest_s = REST_NS * 1e-9 if patience_s is None else min(patience_s, REST_NS * 1e-9)
        self.busy(int(rest_s * 1e9))
        return rest_s

    def busy(self, for_ns: int = 0) -> None:
        """It is here, and begins what takes that long."""
        self._words[Words.HEARD_NS] = now_ns() + for_ns

    def at_disk(self) -> None:
        """It begins to read or write what may take a slow disk a while."""
        self.busy(FIRST_NS)

    def served(self) -> None:
        """It has ended a request."""
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
        """There is a new process, which takes a while until it shows itself."""
        self._begun_ns = now_ns()
        self._killed_ns = None
        self.due_ns = self._begun_ns + self._limit() // 4

    def is_killed(self) -> bool:
        """It is, and is to end by itself within the limit; whether it was before."""
        before, self._killed_ns = self._killed_ns is not None, now_ns()
        return before

    def _limit(self) -> int:
        if self._stated_ns is not None:
            return max(self._stated_ns, LEAST_OF_SERVER_NS)
        return _limit_ns(self._words[Words.LONGEST_SERVICE_NS])

    def silent_ns(self) -> int | None:
        """For how long it has been silent, if that is too long; ask again at `due_ns`."""
        limit_ns = self._limit()
        now = self._presence.look(limit_ns // 2)
        self.due_ns = now + limit_ns // 4
        heard = self._words[Words.HEARD_NS]
        if heard < self._begun_ns:
            heard = self._begun_ns + FIRST_NS
        shown = max(heard if self._killed_ns is None else self._killed_ns, self._presence.since_ns)
        return now - shown if now - shown > limit_ns else None

    def is_futile(self) -> bool:
        """It was killed for its silence: whether that was once too often."""
        version = self._words[Words.VERSION]
        self._in_vain = self._in_vain + 1 if version == self._version else 1
        self._version = version
        return self._in_vain >= FUTILE
