"""Simulator: rounds a second of host time, timing only, with a link and a server queue, recording off and on."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from asgd_lab.backends.build import build_task
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from tests.benchmarks.report import spread

ROUNDS = 40_000
REPEATS = 5


def scenario(workers: int) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "simulator",
            "task": {"name": "timing", "size_bytes": 1_000_000, "step_s": 0.01},
            "algorithm": {"name": "asgd", "n_sync": 10},
            "workers": workers,
            "budget": {"updates": ROUNDS},
            "backend": "sim",
            "hardware": {
                "compute": {"distribution": "lognormal"},
                "link": {"latency_s": 1e-5, "bandwidth_bytes_per_s": 1e9},
                "server": {"push_s": 0.5 * 0.1 / workers},
            },
        }
    )


def main() -> None:
    for workers in (16, 1000):
        rates: dict[str, list[float]] = {"summary": [], "all": []}
        for _ in range(REPEATS):
            for record, found in rates.items():
                configured = scenario(workers)
                with tempfile.TemporaryDirectory() as folder:
                    run = RunDirectory.create(Path(folder) / "run", "", record=record)
                    simulation = Simulation(configured, run, build_task(configured))
                    began = time.perf_counter()
                    simulation.run()
                    run.effects.close()
                    found.append(ROUNDS / (time.perf_counter() - began))
                    run.minibatches.close()
                    run.evals.close()
        ratios = [on / off for on, off in zip(rates["all"], rates["summary"], strict=True)]
        print(
            f"{workers} workers: {spread(rates['summary'], 1e-3, 'thousand rounds/s')} recording off, "
            f"{spread(rates['all'], 1e-3, 'thousand rounds/s')} on; on/off {spread(ratios)}",
            flush=True,
        )
