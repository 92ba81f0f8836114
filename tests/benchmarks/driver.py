"""Driver: microseconds an effect costs a real worker process, recording included, when the server answers at once"""

from __future__ import annotations

import socket
import tempfile
import time
from itertools import islice
from pathlib import Path

from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.channel import Answer, Ask, Request
from asgd_lab.backends.process.clock import now_ns
from asgd_lab.backends.process.link import Link
from asgd_lab.backends.process.memory import SharedTensors, Stack
from asgd_lab.backends.process.plan import Plan
from asgd_lab.backends.process.worker import WorkerProcess
from asgd_lab.scenario import Scenario
from tests.benchmarks.report import spread

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
            here = Path(folder)
            plan = Plan(
                scenario=scenario, size=1, size_bytes=4, slots=Stack("v", 3, 1), mailboxes=Stack("m", 1, 1),
                states=Stack("s", 0, 1), data=SharedTensors({}), board=Board(1), run_dir=here, resumed=None,
                elapsed_ns=0, parts=here, logs=here, path=(), trusted=False,
            )  # fmt: skip
            end, _ = ends = socket.socketpair()
            worker = WorkerProcess(plan, 0, 0, end)
            worker.link = Instant(end, lambda checkpoint: None)
            worker.start_ns = now_ns()
            worker.worker.learner.minibatch = lambda step: (0.0, 0.0)  # type: ignore[method-assign]
            worker.worker.program = islice(worker.worker.program, 3 * ROUNDS)  # type: ignore[assignment]
            began = time.perf_counter()
            worker._drive()
            costs.append((time.perf_counter() - began) / (3 * ROUNDS))
            assert worker.replica.sequence == ROUNDS, "the program ended before its rounds were over"
            worker.effects.close()
            plan.close()
            for each in ends:
                each.close()
    print(f"driver: {spread(costs, 1e6, 'µs an effect')} repeats of {3 * ROUNDS} effects (wanted: below 10)")
