"""The server's publications: its progress, copies of its parameters, and its final files."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from asgd_lab.backends.build import build_algorithm
from asgd_lab.backends.real import snapshots
from asgd_lab.backends.real.failure_detector import Heartbeat
from asgd_lab.backends.real.logged_server import LoggedServer
from asgd_lab.backends.real.plan import DISTANCE_ROW, Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.record import atomic_files
from asgd_lab.record.rowfile import RowFile


class Publisher:
    """Called after every version."""

    def __init__(self, plan: Plan, logged: LoggedServer, heartbeat: Heartbeat) -> None:
        self._plan, self._logged, self._server, self._heartbeat = plan, logged, logged.server, heartbeat
        self._words = plan.transport.words.of_server()
        self._training_error: memoryview[float] = memoryview(plan.transport.words.training_error.data)
        self._snapshots = snapshots.of_server(plan)
        self._distances: RowFile | None = None
        self.measures = plan.scenario.backend.distances
        if self.measures:
            self._distances = RowFile(plan.distances, DISTANCE_ROW, existing=True)
        self._every = plan.scenario.backend.digest_every_updates
        # If workers share the parameters, a copy has the values of just that time.
        self._shared = plan.transport.slot(0) if build_algorithm(plan.scenario).shared and plan.size else None

    def show(self) -> None:
        """Publish the newest numbers."""
        self._words[Words.VERSION] = self._server.version
        self._words[Words.MINIBATCHES] = self._server.minibatches
        self._training_error[0] = self._server.training_error

    def look(self, clock_ns: int) -> None:
        """Copy the parameters if that is due; record their hash then, and when the scenario asks for it."""
        server = self._server
        if self._shared is None and server.parameters is None:
            return
        looks = self._every is not None and server.version % self._every == 0
        if self._snapshots is not None and self._snapshots.due(server.minibatches):
            self._heartbeat.at_disk()
            params = self._params()
            assert params is not None
            self._snapshots.take(clock_ns, server.version, server.minibatches, params)
            looks = server.version > 0 and self._shared is None
        if looks:
            self._logged.digest(clock_ns)

    def measure(self, worker: int, number: int) -> None:
        """Record the distance between a push's center and the newest version; a resent push is measured again."""
        parameters = self._server.parameters
        if self._distances is not None and parameters is not None:
            self._distances.add(worker, number, parameters.moved(worker))

    def hand_over(self) -> None:
        """Leave the final parameters and the end of the run's clock for the parent."""
        params = self._params()
        final = params.numpy() if params is not None else np.empty(0, np.float32)
        arrays = {"params": final, "end_ns": np.int64(self._logged.end.ns)}
        atomic_files.write_arrays(self._plan.parts / "final.npz", arrays, durable=False)

    def _params(self) -> Tensor | None:
        parameters = self._server.parameters
        return self._shared if parameters is None else parameters.current
