"""The server's queue: one request is served at a time, first come first served.

What does not queue is a one-sided read, which the server does not see; a request that costs no time queues too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from asgd_lab.backends.sim.clock import Clock
from asgd_lab.backends.sim.cores import Cores

Served = Callable[[int, int], None]
"""Called when a request has been served, with the nanoseconds at which its service started and which it waited."""


class ServerQueue:
    """Serves on a core of its own, or on one of a node's shared `cores`."""

    def __init__(self, env: Clock, cores: Cores | None) -> None:
        self._env, self._cores = env, cores
        self._free_at = 0  # with a core of its own, arithmetic is all the queue there is
        self._waiting: deque[tuple[int, int, Served]] = deque()  # (arrival, service, callback) on shared cores
        self._serving = False

    def submit(self, service_ns: int, served: Served, queues: bool = True) -> None:
        """Serve a request of `service_ns`."""
        now = self._env.now
        idle = not self._serving if self._cores is not None else self._free_at <= now
        if not queues or (idle and not service_ns):
            served(now, 0)
        elif self._cores is not None:
            self._waiting.append((now, service_ns, served))
            if not self._serving:
                self._serve_next(self._cores)
        else:
            start = max(now, self._free_at)
            self._free_at = start + service_ns
            self._env.timeout(self._free_at - now).callbacks.append(lambda _: served(start, start - now))

    def _serve_next(self, cores: Cores) -> None:
        if not self._waiting:
            return
        self._serving = True
        arrived, service_ns, served = self._waiting.popleft()
        start = self._env.now

        def done(_: object) -> None:
            self._serving = False
            served(start, start - arrived)
            if not self._serving:
                self._serve_next(cores)

        cores.work(service_ns, done)
