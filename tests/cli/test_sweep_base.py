"""Speed-up is over the fewest workers of the whole sweep: a run whose base has failed has none."""

from __future__ import annotations

from typing import Any

from asgd_lab import sweep_tables
from asgd_lab.scenario import Document

SWEEP: dict[str, Any] = {
    "name": "timing",
    "task": {"name": "timing", "size_bytes": 1000, "step_s": 0.01},
    "algorithm": {"name": "asgd", "n_sync": 1},
    "budget": {"minibatches": 40},
    "backend": "sim",
    "sweep": {"algorithm.n_sync": [1, 2], "workers": [1, 2, 4]},
}


def test_a_run_whose_base_has_failed_has_no_speed_up() -> None:
    points = list(Document.of(SWEEP).points({}))
    rates = {point.name: 100.0 * point.scenario.workers for point in points}
    summaries = {
        name: {"minibatches_per_s": rate, "makespan_s": 1.0, "utilisation": {"workers": 1.0, "server": 0.0},
               "staleness": {"mean": 0.0, "max": 0}, "updates": 1, "minibatches": 40, "final": {}}
        for name, rate in rates.items() if name != "algorithm.n_sync=2,workers=1"
    }  # fmt: skip
    groups = sweep_tables.groups(points, summaries)
    found = {(g.values["algorithm.n_sync"], g.values["workers"]): next(iter(g.runs.values())) for g in groups}
    assert [found[1, each]["speedup"] for each in (1, 2, 4)] == [1.0, 2.0, 4.0]
    assert [("speedup" in found[2, each]) for each in (2, 4)] == [False, False]
