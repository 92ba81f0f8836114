"""Driver: microseconds an effect costs a real worker process, recording included, when the server answers at once"""

from __future__ import annotations

import socket
import tempfile
import time
from itertools import islice
from pathlib import Path

from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.channel import Answer, Ask, Request
from asgd_lab.backends.process.memory import SharedTensors, Stack
from asgd_lab.backends.process.plan import Plan
from asgd_lab.backends.process.worker import WorkerProcess
from asgd_lab.scenario import Scenario
from tests.benchmarks.report import spread

ROUNDS = 20_000
REPEATS = 7


class Instant(WorkerProcess):
    """Its server answers before it is asked; its learner does nothing: what is left is the driver, and torch's
    copy and subtraction of one number."""

    version = 0

    def _call(self, request: Request) -> Answer:
        if request.ask == Ask.FETCH:
            return Answer(self.version, 0, 1)
        self.version += 1
        return Answer(self.version, 0, 1)


def main() -> None:
    scenario = Scenario.model_validate(
        {
            "name": "driver",
            "task": {"name": "quadratic", "curvature": [1.0]},
            "algorithm": {"name": "asgd", "n_sync": 1},
            "budget": {"minibatches": 1},
        }
    )
    costs = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            plan = Plan(
                scenario, 1, 4, Stack("v", 3, 1), Stack("m", 1, 1), SharedTensors({}), Board(1),
                Path(folder), Path(folder), (),
            )  # fmt: skip
            worker = Instant(plan, 0, socket.socket())
            worker.start_ns = time.monotonic_ns()
            worker.worker.learner.minibatch = lambda step: (0.0, 0.0)  # type: ignore[method-assign]
            worker.worker.program = islice(worker.worker.program, 3 * ROUNDS)  # type: ignore[assignment]
            began = time.perf_counter()
            worker._drive()
            costs.append((time.perf_counter() - began) / (3 * ROUNDS))
            worker.effects.close()
            plan.close()
    print(f"driver: {spread(costs, 1e6, 'µs an effect')} repeats of {3 * ROUNDS} effects (wanted: below 10)")
