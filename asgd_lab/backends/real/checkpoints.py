"""Checkpoints of a running real run, taken while every worker is between two rounds.

When one is due, the server holds incoming fetches; a worker that waits for its fetch has sent all its pushes, and saves
its state that outlives a round: its place, its local optimizer, unpushed work. When all workers have saved, the
server saves the parameters and the length of the event log, and grants the fetches. So the event log up to there, these
files and the scenario are the whole state of the run.

A gate may grant a worker's fetch while it saves. So each Save is numbered: only the answer to the last one counts, and
none after a grant. Then no member is writing when the checkpoint is committed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns as now_ns

import numpy as np
import torch

from asgd_lab.backends.build import Worker
from asgd_lab.backends.real.failure_detector import Heartbeat
from asgd_lab.backends.real.logged_server import LoggedServer
from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.transport import Heard, Save, Saved
from asgd_lab.hardware.costs import nanoseconds
from asgd_lab.record import checkpoints, removal
from asgd_lab.record.rowfile import cut

LEARNER, KEPT, CODEC = "learner.", "kept.", "codec."


class Checkpointer:
    """The server's side; `tell` sends to a worker, and `held` are the fetches held meanwhile."""

    def __init__(
        self, plan: Plan, logged: LoggedServer, heartbeat: Heartbeat, tell: Callable[[int, Save], None]
    ) -> None:
        self._plan, self._logged, self._heartbeat, self._send = plan, logged, heartbeat, tell
        self._server = logged.server
        config = plan.scenario.backend.checkpoint
        self._every_updates = None if config is None else config.every_updates
        self._every_ns = None if config is None or config.every_s is None else nanoseconds(config.every_s)
        self.is_wanted = config is not None
        self._keep = 1 if config is None else config.keep
        self._version = self._server.version  # of the last checkpoint
        self._time_ns = plan.elapsed_ns
        self._number = 0
        self.under_way = False
        self.held: list[Heard] = []
        self._told: dict[int, int] = {}  # the number of the last Save of each worker that has not answered it
        self._saved: set[int] = set()
        self._count = itertools.count()

    @property
    def due_ns(self) -> int | None:
        """The time of the next one on the run's clock; None if versions, or nothing, decide it."""
        return None if self._every_ns is None or self.under_way else self._time_ns + self._every_ns

    def look(self, clock_ns: int) -> None:
        """Begin one if it is due."""
        server = self._server
        if self.under_way or server.finished or not server.members:
            return
        by_updates = self._every_updates is not None and server.version >= self._version + self._every_updates
        if not by_updates and (self._every_ns is None or clock_ns < self._time_ns + self._every_ns):
            return
        self._number = now_ns()
        self._heartbeat.at_disk()
        checkpoints.begin(self._plan.run_dir, self._number)
        self.under_way = True
        self._told.clear()
        self._saved.clear()
        for worker in sorted(server.waiting):
            self._tell(worker)

    def hold(self, fetch: Heard) -> None:
        """Hold a fetch; its worker saves its state."""
        self.held.append(fetch)
        self._tell(fetch.sender)

    def saved(self, saved: Saved) -> None:
        """A worker has saved, in answer to that Save."""
        if self.under_way and saved.checkpoint == self._number and self._told.get(saved.worker) == saved.told:
            self._saved.add(saved.worker)

    def granted(self, worker: int) -> None:
        """A worker's fetch was granted: its saved state is out of date."""
        self._told.pop(worker, None)
        self._saved.discard(worker)

    def gone(self, worker: int) -> None:
        """A worker has left: drop its held fetch."""
        self.granted(worker)
        self.held = [item for item in self.held if item.sender != worker]

    def finish(self, clock_ns: int) -> list[Heard]:
        """If all members have saved, save the server's part and return the held fetches, to be served now."""
        server = self._server
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
        incarnation = self._server.standing(worker)[0]
        self._told[worker] = told = next(self._count)
        self._saved.discard(worker)
        self._send(worker, Save(worker, incarnation, self._number, told))

    def _write(self, clock_ns: int) -> None:
        server, run_dir = self._server, self._plan.run_dir
        self._heartbeat.at_disk()
        arrays = {}
        if server.parameters is not None:
            self._logged.digest(clock_ns)
            arrays = {name: tensor.numpy() for name, tensor in server.parameters.tensors().items()}
        checkpoints.write(run_dir, self._number, "server", arrays)
        checkpoints.commit(
            run_dir, self._number, version=server.version, minibatches=server.minibatches, elapsed_ns=clock_ns,
            workers=sorted(server.members), keep=self._keep,
        )  # fmt: skip


def save_worker(plan: Plan, worker: Worker, checkpoint: int) -> bool:
    """Save a worker between two rounds: place, local optimizer, unpushed work. False if the checkpoint is abandoned."""
    replica = worker.replica
    whole, sums = worker.client.place()
    kept = replica.vectors.kept() if replica.vectors is not None and replica.unpushed else []
    arrays = {"place": np.array(whole, np.int64), "sums": np.array(sums)}
    arrays |= {f"{KEPT}{index}": vector.cpu().numpy() for index, vector in enumerate(kept)}
    arrays |= {f"{CODEC}{index}": vector.cpu().numpy() for index, vector in enumerate(replica.codec_state)}
    arrays |= {f"{LEARNER}{name}": value.cpu().numpy() for name, value in worker.learner.state().items()}
    return checkpoints.write(plan.run_dir, checkpoint, f"worker-{replica.worker}", arrays)


def restore_worker(plan: Plan, worker: Worker) -> bool:
    """Restore a worker from the checkpoint; False if it was not a member then, or if the run is not resumed."""
    number = worker.replica.worker
    if plan.resumed is None or number not in checkpoints.state_of(plan.resumed).workers:
        return False
    arrays = checkpoints.read(plan.resumed, f"worker-{number}")
    worker.client.resume(arrays["place"].tolist(), arrays["sums"].tolist())
    kept = sorted((name for name in arrays if name.startswith(KEPT)), key=lambda name: int(name.removeprefix(KEPT)))
    if worker.replica.vectors is not None:
        worker.replica.vectors.restore([torch.from_numpy(arrays[name]) for name in kept])
    for index, vector in enumerate(worker.replica.codec_state):
        vector.copy_(torch.from_numpy(arrays[f"{CODEC}{index}"]))
    worker.learner.load(
        {name.removeprefix(LEARNER): torch.from_numpy(value) for name, value in arrays.items() if LEARNER in name}
    )
    return True


def rewind(plan: Plan, checkpoint: Path) -> None:
    """Rewind a run to its checkpoint: discard later rows, and put the versions where the server expects them.

    The checkpoint is read completely before anything is changed.
    """
    state = checkpoints.state_of(checkpoint)
    arrays = checkpoints.read(checkpoint, "server", state)
    for path in sorted(plan.parts.iterdir()):
        if path.name in state.rows:
            cut(path, state.rows[path.name])
        elif path.suffix in checkpoints.ROW_FILES and path != plan.distances:  # distances are measured again
            removal.remove_file(plan.run_dir, f"parts/{path.name}")
    cut(plan.events, state.events)
    logged = LoggedServer(plan, plan.transport)
    logged.close()
    parameters = logged.server.parameters
    if parameters is not None:
        for name, tensor in parameters.tensors().items():
            tensor.copy_(torch.from_numpy(arrays[name]))
