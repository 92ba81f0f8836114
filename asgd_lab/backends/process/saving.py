"""Checkpoints of a run that goes on: at a moment when every worker is between two rounds.

When one is due, the server keeps the fetches that come; a worker that waits for one has pushed all that it started
before, and writes down what outlives a round: its place, its local optimizer, work that it has not pushed. When all
have, the server writes the parameters and how far the record has come, and lets everybody go on. So the record up to
there, these files and the scenario are the whole state of the run.

A gate may let a worker go on while it writes. So each word to write is numbered: only the answer to the last one
counts, and none after a grant. Then no member is writing when the checkpoint is committed.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from asgd_lab.backends.process import channel
from asgd_lab.backends.process.channel import Answer, Ask, Request
from asgd_lab.backends.process.clock import now_ns
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.record import checkpoints

if TYPE_CHECKING:
    from asgd_lab.backends.process.server import ServerProcess


class Saver:
    """The server's side; `held` are the fetches that it keeps meanwhile."""

    def __init__(self, process: ServerProcess) -> None:
        self._process, self._plan = process, process.plan
        config = process.plan.scenario.backend.checkpoint
        self._every_updates = None if config is None else config.every_updates
        self._every_ns = None if config is None or config.every_s is None else nanoseconds(config.every_s)
        self._keep = 1 if config is None else config.keep
        self._version = process.server.version  # of the last one
        self._time_ns = process.plan.elapsed_ns
        self._number = 0
        self.under_way = False
        self.held: list[tuple[int, Request]] = []
        self._told: dict[int, int] = {}  # the last word of each worker that has not answered it
        self._saved: set[int] = set()
        self._count = itertools.count()

    @property
    def due_ns(self) -> int | None:
        """When the next one is due, of the run's clock; None where versions or nothing decide that."""
        return None if self._every_ns is None or self.under_way else self._time_ns + self._every_ns

    def look(self, clock_ns: int) -> None:
        """Begin one if it is due."""
        server = self._process.server
        if self.under_way or server.finished or not server.members:
            return
        by_updates = self._every_updates is not None and server.version >= self._version + self._every_updates
        if not by_updates and (self._every_ns is None or clock_ns < self._time_ns + self._every_ns):
            return
        self._number = now_ns()
        self._process.heartbeat.at_disk()
        checkpoints.begin(self._plan.run_dir, self._number)
        self.under_way = True
        self._told.clear()
        self._saved.clear()
        for worker in sorted(server.waiting):
            self._tell(worker)

    def hold(self, worker: int, request: Request) -> None:
        """A fetch that has to wait; its worker writes down what it has."""
        self.held.append((worker, request))
        self._tell(worker)

    def saved(self, worker: int, number: int, told: int) -> None:
        """A worker has, as it was told then."""
        if self.under_way and number == self._number and self._told.get(worker) == told:
            self._saved.add(worker)

    def granted(self, worker: int) -> None:
        """It goes on: what it has written, or is writing, is of the past."""
        self._told.pop(worker, None)
        self._saved.discard(worker)

    def gone(self, worker: int) -> None:
        """It is out, and so is what it had asked."""
        self.granted(worker)
        self.held = [item for item in self.held if item[0] != worker]

    def finish(self, clock_ns: int) -> list[tuple[int, Request]]:
        """If all members have saved: the server's part, and the fetches that may be served now. If none is left to."""
        server = self._process.server
        if not self.under_way:
            return []
        if not server.closed and server.members:
            if not server.members <= self._saved:
                return []
            self._write(clock_ns)
        self.under_way = False
        self._version, self._time_ns = server.version, clock_ns
        held, self.held = self.held, []
        return held

    def _tell(self, worker: int) -> None:
        incarnation = self._process.server.standing(worker)[0]
        self._told[worker] = told = next(self._count)
        self._saved.discard(worker)
        channel.answer(self._process.ends[worker], Answer(Ask.SAVE, self._number, incarnation, detail=told))

    def _write(self, clock_ns: int) -> None:
        server, run_dir = self._process.server, self._plan.run_dir
        self._process.heartbeat.at_disk()
        arrays = {}
        if server.parameters is not None:
            self._process.ledger.digest(clock_ns)
            arrays["params"] = server.parameters.current.numpy()
            arrays |= {f"state.{index}": each.numpy() for index, each in enumerate(server.parameters.state)}
        checkpoints.write(run_dir, self._number, "server", arrays)
        checkpoints.commit(
            run_dir, self._number, version=server.version, minibatches=server.minibatches, elapsed_ns=clock_ns,
            workers=sorted(server.members), keep=self._keep,
        )  # fmt: skip
