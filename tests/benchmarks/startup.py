"""Start-up: seconds from the command to the first minibatch: the run's clock starts when all workers are ready"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.report import spread

REPEATS = 5
SCENARIO = """
name: startup
task: {{name: classification, dataset: digits, model: mlp}}
algorithm: {{name: asgd, n_sync: 1}}
workers: {workers}
budget: {{minibatches: {workers}}}
backend: {{name: process, device: {device}}}
hardware: {{compute: {{step_s: 0.05}}}}
"""


def main() -> None:
    for workers, device in ((2, "cpu"), (32, "emulated")):
        whole, ready = [], []
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "startup.yaml"
                path.write_text(SCENARIO.format(workers=workers, device=device))
                began = time.time()
                subprocess.run(
                    [sys.executable, "-m", "asgd_lab", "run", path, "--out", Path(folder) / "run"],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                whole.append(time.time() - began)
                summary = json.loads((Path(folder) / "run" / "summary.json").read_text())
                ready.append(summary["started_unix_s"] - began)
        print(
            f"{workers} {device} workers: {spread(ready, 1.0, 's')} to the first minibatch's start, "
            f"{spread(whole, 1.0, 's')} to the end of the command",
            flush=True,
        )
