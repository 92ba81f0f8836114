"""Chaos: minutes under fire, for each algorithm: what was done to the processes, and what was lost."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.backends.chaos import survive
from tests.benchmarks.report import Row

SECONDS = 60.0
ALGORITHMS = [
    {"name": "asgd", "n_sync": 3},
    {"name": "sync_sgd", "n_sync": 2},
    {"name": "ssp", "n_sync": 2, "bound": 1},
    {"name": "downpour", "n_fetch": 4, "n_push": 2, "depth": 3},
    {"name": "asgd", "n_fetch": 5, "n_push": 3},
]


def measure(tiny: bool) -> Iterator[Row]:
    """What was done to all of them together, and what was lost."""
    algorithms, workers, seconds = (ALGORITHMS[:1], 2, 3.0) if tiny else (ALGORITHMS, 4, SECONDS)
    done: Counter[str] = Counter()
    updates = gaps = lost = twice = differences = 0
    for seed, algorithm in enumerate(algorithms, 100):
        with tempfile.TemporaryDirectory() as folder:
            found = survive(Path(folder) / "run", seed, dict(algorithm), workers, seconds)
        done += found.done
        updates += found.summary["updates"]
        gaps += found.summary["updates"] - len(found.versions)
        lost += found.lost
        twice += found.twice
        differences += found.verdict.difference is not None
    under = f"{len(algorithms)} algorithms, {workers} workers, {seconds:.0f} s each under fire"
    for what, count in sorted(done.items()):
        yield Row(f"{what}: {under}", [count], "times")
    yield Row(f"updates: {under}", [updates])
    yield Row(f"versions missing: {under}", [gaps])
    yield Row(f"minibatches lost: {under}", [lost])
    yield Row(f"minibatches applied twice: {under}", [twice])
    yield Row(f"replays whose bits differ: {under}", [differences])
