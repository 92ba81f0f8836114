"""Start-up: seconds from the command to the first minibatch: the run's clock starts when all workers are ready

Beside them the processor seconds, all processes together, of commands that train nothing.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.report import Row

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


def cpu_s(*arguments: str) -> float:
    """The processor seconds of a command and of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "asgd_lab", *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(tiny: bool) -> Iterator[Row]:
    """Seconds to the first minibatch, and to the end of the command."""
    commands = ("--help", "list scenarios", "validate how-stale", "validate quickstart")
    for command in commands[:1] if tiny else commands:
        seconds = [cpu_s(*command.split()) for _ in range(1 if tiny else REPEATS)]
        yield Row(f"processor time of `asgd-lab {command}`", seconds, "s", told=False)
    crews, repeats = (((2, "emulated"),), 1) if tiny else (((2, "cpu"), (32, "emulated")), REPEATS)
    for workers, device in crews:
        whole, ready = [], []
        for _ in range(repeats):
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
        what = f"{workers} {'real' if device == 'cpu' else device} worker{'s' * (workers > 1)}"
        yield Row(f"from the command to the first minibatch, {what}", ready, "s")
        yield Row(f"from the command to its end, {what}, a minibatch each", whole, "s", told=False)
