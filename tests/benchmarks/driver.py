"""Driver: microseconds an effect costs a real worker process, recording included, when the server answers at once"""

from __future__ import annotations

import socket
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import monotonic_ns as now_ns
from typing import Any

from asgd_lab.backends.real.transport import Told, Welcome, WorkerEnd
from asgd_lab.backends.real.worker import WorkerProcess
from asgd_lab.protocol.messages import Ack, FetchRequest, Grant, Join, PushRequest
from asgd_lab.scenario import Scenario
from tests.benchmarks.planned import plan
from tests.benchmarks.report import Row

ROUNDS = 20_000
REPEATS = 7


class Instant:
    """The answer to a request is there before anybody waits for it: nobody is asked, and nobody sleeps."""

    def __init__(self, end: WorkerEnd) -> None:
        self.end, self.version = end, 0
        self.inbox: deque[Told] = deque()
        self.center = end.center  # without the way through `__getattr__`

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)

    def send(self, message: Any, sent_ns: int = 0, received_ns: int = 0, behind: Any = None) -> None:
        if type(message) is PushRequest:
            self.version += 1
            self.inbox.append((Ack(*message[:3], self.version, 0, 1), 0, 0))
        elif type(message) is FetchRequest:
            self.inbox.append((Grant(*message[:3], self.version, 1, 0), 0, 0))
        elif type(message) is Join:
            self.inbox.append((Welcome(0, 1, message.life, 0, 0, 0, now_ns()), 0, 0))
        if behind is not None:
            self.send(behind)

    def hear(self) -> Told:
        return self.inbox.popleft()


def measure(tiny: bool) -> Iterator[Row]:
    """Microseconds an effect."""
    rounds, repeats = (20, 2) if tiny else (ROUNDS, REPEATS)
    scenario = Scenario.model_validate(
        {
            "name": "driver",
            "task": {"name": "quadratic", "curvature": [1.0]},
            "algorithm": {"name": "asgd", "n_sync": 1},
            "budget": {"minibatches": 1},
        }
    )
    costs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            prepared = plan(scenario, Path(folder), 1)
            place, _ = ends = socket.socketpair()
            process = WorkerProcess(prepared, 0, 0, place)
            worker, carrier = process.worker, process.carrier
            carrier.end = Instant(process.end)  # type: ignore[assignment]
            welcome = carrier.join(worker, Join(0, 1), 1)
            worker.client.begin(welcome.incarnation, welcome.pushes, welcome.minibatches)
            worker.learner.minibatch = lambda step: (0.0, 0.0)  # type: ignore[method-assign]
            worker.client.program = islice(worker.client.program, 3 * rounds)  # type: ignore[assignment]
            began = time.perf_counter()
            carrier.carry()
            costs.append(1e6 * (time.perf_counter() - began) / (3 * rounds))
            assert worker.replica.sequence == rounds, "the program ended before its rounds were over"
            carrier.close()
            prepared.close()
            for each in ends:
                each.close()
    yield Row("an effect on the real path, recording included (wanted: below 10)", costs, "µs")
