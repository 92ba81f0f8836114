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
from collections.abc import Callable, Iterator
from pathlib import Path

from asgd_lab.backends.build import build_task
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from tests.benchmarks import plain
from tests.benchmarks.plain import System
from tests.benchmarks.report import Row

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


def measure(tiny: bool) -> Iterator[Row]:
    """Rounds a CPU second, beside those by hand, and memory."""
    crews, least, repeats = ((4,), 200, 1) if tiny else ((16, 1000, 10_000), ROUNDS, REPEATS)
    for workers in crews:
        system = System(workers, max(least, ROUNDS_A_WORKER * workers))
        took: dict[str, list[float]] = {"ours": [], "plain": [], "tuned": [], "recording": []}
        for _ in range(repeats):
            took["ours"].append(ours(system, "summary"))
            took["plain"].append(by_hand(plain.plain, system))
            took["tuned"].append(by_hand(plain.tuned, system))
            took["recording"].append(ours(system, "all"))
        what = f"timing only, shared link and server queue, {workers:,} workers"
        yield Row(f"simulated rounds a CPU second, {what}", [system.rounds / seconds for seconds in took["ours"]])
        for name in ("plain", "tuned"):
            ratios = [other / mine for other, mine in zip(took[name], took["ours"], strict=True)]
            yield Row(f"the same, against {name} simpy by hand, {workers:,} workers", ratios, "times")
        kept = [mine / recorded for mine, recorded in zip(took["ours"], took["recording"], strict=True)]
        yield Row(f"the same while recording, trace.json not counted, {workers:,} workers", kept, "times")
    workers, lengths = (20, (3,)) if tiny else (MEMORY_WORKERS, (30, 300))
    for rounds in lengths:
        for record in ("summary", "all"):
            found = memory(workers, rounds, record)
            what = f"of {workers:,} workers, {rounds} rounds each, record: {record}"
            yield Row(f"peak memory {what}", [found["peak_mb"]], "MB")
            yield Row(f"memory before the workers are made, {what}", [found["before_mb"]], "MB", told=False)
            yield Row(f"seconds {what}", [found["seconds"]], "s", told=False)
