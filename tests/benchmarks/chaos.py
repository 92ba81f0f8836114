"""Chaos: minutes under fire, for each algorithm: what was done to the processes, and what was lost. `chaos SECONDS`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.backends.chaos import survive

SECONDS = 60.0
ALGORITHMS = [
    {"name": "asgd", "n_sync": 3},
    {"name": "sync_sgd", "n_sync": 2},
    {"name": "ssp", "n_sync": 2, "bound": 1},
    {"name": "downpour", "n_fetch": 4, "n_push": 2, "depth": 3},
    {"name": "asgd", "n_fetch": 5, "n_push": 3},
]


def main() -> None:
    """A line an algorithm."""
    for seed, algorithm in enumerate(ALGORITHMS, 100):
        with tempfile.TemporaryDirectory() as folder:
            found = survive(Path(folder) / "run", seed, dict(algorithm), 4, SECONDS)
        done = ", ".join(f"{what} {count}" for what, count in sorted(found.done.items()))
        gaps = found.summary["updates"] - len(found.versions)
        bits = "bits equal" if found.verdict.difference is None else found.verdict.difference
        print(
            f"{algorithm}: {done}; {found.seconds:.0f} s, {found.summary['updates']} updates, {gaps} versions missing, "
            f"lost {found.lost}, twice {found.twice}; replay of {found.verdict.pushes} pushes: {bits}",
            flush=True,
        )
