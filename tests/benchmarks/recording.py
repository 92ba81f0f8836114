"""Recording: what the record that replay needs costs a round, beside a recorder that does nothing.

The same events are told to the logged server twice, alternately: with its file of rows, and with a recorder that
forgets. The difference is set against the round of the fastest run there is here: a thousand parameters, n_sync 1.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns as now_ns
from typing import Any

from asgd_lab.backends.real.logged_server import LoggedServer
from asgd_lab.protocol.messages import FetchRequest, Join, PushRequest
from asgd_lab.scenario import Scenario
from tests.benchmarks import sync
from tests.benchmarks.planned import plan
from tests.benchmarks.report import Row

ROUNDS = 20_000
REPEATS = 9


class Forgetful:
    """A recorder that does nothing."""

    def add(self, *values: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def seconds_a_round(forgets: bool, rounds: int) -> float:
    """Of a fetch and a push of one worker, told to a logged server that has no parameters."""
    scenario = Scenario.model_validate(
        {
            "name": "recording", "task": {"name": "timing", "size_bytes": 0, "step_s": 1.0},
            "algorithm": {"name": "asgd", "n_sync": 1}, "budget": {"minibatches": rounds},
            "backend": {"name": "process", "device": "emulated"},
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepared = plan(scenario, Path(folder), 0)
        logged: Any = LoggedServer(prepared, prepared.transport)
        if forgets:
            logged._log._rows.close()
            logged._log._rows = Forgetful()
        logged.commit(Join(0), 0, now_ns)
        began = time.perf_counter()
        for number in range(1, rounds):
            logged.commit(FetchRequest(0, 1, number), 0, now_ns)
            logged.commit(PushRequest(0, 1, number, number - 1, 1, 0.0, 0.0), 0, now_ns)
        took = time.perf_counter() - began
        logged.close()
        prepared.close()
    return took / rounds


def measure(tiny: bool) -> Iterator[Row]:
    """The difference, and its share of a round."""
    events, repeats, shortest = (20, 2, 20) if tiny else (ROUNDS, REPEATS, sync.ROUNDS[1_000])
    pairs = [(seconds_a_round(False, events), seconds_a_round(True, events)) for _ in range(repeats)]
    costs = [kept - forgotten for kept, forgotten in pairs]
    rounds = [statistics.median(sync.gaps(1, 1_000, shortest)) for _ in range(1 if tiny else 3)]
    yield Row(
        "recording a fetch and a push for replay, against a recorder that forgets", [1e6 * s for s in costs], "µs"
    )
    yield Row("a round of a thousand parameters, 1 worker", [1e6 * s for s in rounds], "µs", told=False)
    share = [100 * cost / statistics.median(rounds) for cost in costs]
    yield Row("the same recording, as a share of that round, the shortest there is", share, "%")
