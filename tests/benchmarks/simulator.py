"""Simulator: rounds a second, timing only, shared link and server queue, beside the same system by hand in simpy.

Rates are per second of this process's CPU time, so that a busy neighbour counts less. Of all three the making of the
workers is counted, random generators of the rivals excepted, and times are drawn in blocks of one size. Recording
includes the tables on disk, not the trace.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from asgd_lab.backends.build import build_task
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from tests.benchmarks import plain
from tests.benchmarks.plain import System
from tests.benchmarks.report import spread

ROUNDS = 40_000
ROUNDS_A_WORKER = 12  # at least
REPEATS = 3
MEMORY_WORKERS = 10_000


def scenario(system: System, record: str = "all") -> Scenario:
    return Scenario.model_validate(
        {
            "name": "simulator",
            "task": {"name": "timing", "size_bytes": plain.SIZE_BYTES, "step_s": plain.STEP_S},
            "algorithm": {"name": "asgd", "n_sync": plain.N_SYNC},
            "workers": system.workers,
            "budget": {"updates": system.rounds},
            "backend": "sim",
            "hardware": {
                "compute": {"distribution": "lognormal", "cv": plain.CV},
                "link": {
                    "latency_s": plain.LATENCY_S,
                    "bandwidth_bytes_per_s": system.bandwidth,
                    "shared": True,
                },
                "server": {"push_s": system.service_s},
            },
            "record": record,
        }
    )


def ours(system: System, record: str) -> float:
    """CPU seconds of a run."""
    configured = scenario(system, record)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", "", record=record)
        task = build_task(configured)
        took = cpu_s(lambda: (Simulation(configured, run, task).run(), run.effects.close()))
        run.minibatches.close()
        run.evals.close()
    return took


def by_hand(model: Callable[[System], None], system: System) -> float:
    """CPU seconds of a run of one of the rivals."""
    fresh = System(system.workers, system.rounds)
    return cpu_s(lambda: model(fresh))


def cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


def memory(workers: int, rounds: int, record: str) -> dict[str, float]:
    """Peak memory of a whole run in a process of its own, and what it was before the workers were made."""
    out = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.memory", str(workers), str(rounds), record],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(out.stdout)
    return found


def main() -> None:
    for workers in (16, 1000, 10_000):
        system = System(workers, max(ROUNDS, ROUNDS_A_WORKER * workers))
        took: dict[str, list[float]] = {"ours": [], "plain": [], "tuned": [], "recording": []}
        for _ in range(REPEATS):
            took["ours"].append(ours(system, "summary"))
            took["plain"].append(by_hand(plain.plain, system))
            took["tuned"].append(by_hand(plain.tuned, system))
            took["recording"].append(ours(system, "all"))
        rates = [system.rounds / seconds for seconds in took["ours"]]
        ratios = {
            name: [other / mine for other, mine in zip(took[name], took["ours"], strict=True)]
            for name in ("plain", "tuned")
        }
        kept = [mine / recorded for mine, recorded in zip(took["ours"], took["recording"], strict=True)]
        print(
            f"{workers} workers, {system.rounds} rounds: {spread(rates, 1e-3, 'thousand rounds/s')}; "
            f"{spread(ratios['plain'], 1, 'times plain simpy')}, {spread(ratios['tuned'], 1, 'times tuned simpy')}; "
            f"recording on/off {spread(kept)}",
            flush=True,
        )
    for rounds in (30, 300):
        for record in ("summary", "all"):
            found = memory(MEMORY_WORKERS, rounds, record)
            print(
                f"memory, {MEMORY_WORKERS} workers, {rounds} rounds each, record {record}: "
                f"{found['peak_mb']:.0f} MB, of which {found['before_mb']:.0f} MB before the workers were made; "
                f"{found['seconds']:.0f} s",
                flush=True,
            )
