"""Recording: what the record that replay needs costs a round, beside a recorder that does nothing.

The same events are told to the server's ledger twice, alternately: with its file of rows, and with a recorder that
forgets. The difference is set against the round of the fastest run there is here: a thousand parameters, n_sync 1.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.clock import now_ns
from asgd_lab.backends.process.ledger import Ledger
from asgd_lab.backends.process.memory import SharedTensors, Stack
from asgd_lab.backends.process.plan import Plan
from asgd_lab.protocol.events import Event, Kind
from asgd_lab.scenario import Scenario
from tests.benchmarks.report import spread
from tests.benchmarks.sync import gaps

ROUNDS = 20_000
REPEATS = 9


class Forgetful:
    """A recorder that does nothing."""

    def add(self, *values: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def seconds_a_round(forgets: bool) -> float:
    """Of a fetch and a push of one worker, told to a ledger that has no parameters."""
    scenario = Scenario.model_validate(
        {
            "name": "recording", "task": {"name": "timing", "size_bytes": 0, "step_s": 1.0},
            "algorithm": {"name": "asgd", "n_sync": 1}, "budget": {"minibatches": ROUNDS},
            "backend": {"name": "process", "device": "emulated"},
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        stacks = [Stack("benchmark", 1, 0) for _ in range(3)]
        plan = Plan(scenario, 0, 0, *stacks, SharedTensors({}), Board(1), path, None, 0, path, path, (), False)
        ledger: Any = Ledger(plan)
        if forgets:
            ledger._rows.close()
            ledger._rows = Forgetful()
        ledger.commit(Event(Kind.JOIN, 0), 0, 0, now_ns)
        began = time.perf_counter()
        for number in range(1, ROUNDS):
            ledger.commit(Event(Kind.FETCH, 0, 1, number), 0, 0, now_ns)
            ledger.commit(Event(Kind.PUSH, 0, 1, number, number - 1, 1), 0, 0, now_ns)
        took = time.perf_counter() - began
        ledger.close()
        plan.close()
    return took / ROUNDS


def main() -> None:
    """The difference, and its share of a round."""
    torch.set_num_threads(1)
    pairs = [(seconds_a_round(False), seconds_a_round(True)) for _ in range(REPEATS)]
    costs = [kept - forgotten for kept, forgotten in pairs]
    rounds = [statistics.median(gaps(1, 1_000)) for _ in range(3)]
    print(f"recording a fetch and a push: {spread(costs, 1e6, 'µs')}")
    share = [cost / statistics.median(rounds) for cost in costs]
    print(f"of a round of a thousand parameters, {spread(rounds, 1e6, 'µs')}: {spread(share, 100, '%')}")
