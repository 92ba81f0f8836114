"""Driver: microseconds an effect costs a real worker process, recording included, when the server answers at once"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from asgd_lab.backends.real.channel import Answer, Ask, Request
from asgd_lab.backends.real.emulation import now_ns
from asgd_lab.backends.real.link import Link
from asgd_lab.backends.real.worker import WorkerProcess
from asgd_lab.scenario import Scenario
from tests.benchmarks.planned import plan
from tests.benchmarks.report import Row

ROUNDS = 20_000
REPEATS = 7


class Instant(Link):
    """The answer to a request is there before anybody waits for it: nobody is asked, and nobody sleeps."""

    version = 0

    def ask(self, request: Request) -> tuple[int, int]:
        return request.ask, request.number

    def wait(self, key: tuple[int, int]) -> Answer:
        self.version += key[0] == Ask.PUSH
        return Answer(*key, incarnation=1, version=self.version, steps=1)


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
            end, _ = ends = socket.socketpair()
            worker = WorkerProcess(prepared, 0, 0, end)
            worker.line = Instant(end, lambda checkpoint: None)
            worker.start_ns = now_ns()
            worker.worker.learner.minibatch = lambda step: (0.0, 0.0)  # type: ignore[method-assign]
            worker.worker.program = islice(worker.worker.program, 3 * rounds)  # type: ignore[assignment]
            began = time.perf_counter()
            worker._drive()
            costs.append(1e6 * (time.perf_counter() - began) / (3 * rounds))
            assert worker.replica.sequence == rounds, "the program ended before its rounds were over"
            worker.effects.close()
            prepared.close()
            for each in ends:
                each.close()
    yield Row("an effect on the real path, recording included (wanted: below 10)", costs, "µs")
