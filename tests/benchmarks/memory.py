"""One timing-only run and its memory: `python -m tests.benchmarks.memory WORKERS ROUNDS RECORD`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from asgd_lab.backends.build import build_task
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.record.run import RunDirectory
from tests.benchmarks.plain import System
from tests.benchmarks.simulator import scenario


def peak_mb() -> float:
    """Of this process's memory; what getrusage says may be its parent's."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def main() -> None:
    workers, rounds, record = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    configured = scenario(System(workers, workers * rounds), record)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", "", record=record)
        before, began = peak_mb(), time.perf_counter()
        Simulation(configured, run, build_task(configured)).run()
        for rows in (run.effects, run.minibatches, run.evals):
            rows.close()
    found = {"before_mb": before, "peak_mb": peak_mb(), "seconds": time.perf_counter() - began}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
