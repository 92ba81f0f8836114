"""A plan of processes without processes: what a part of the process backend needs to be timed by itself."""

from __future__ import annotations

from pathlib import Path

from asgd_lab.backends.real.orphans import SharedHold
from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.transports.shared_memory import SharedMemory
from asgd_lab.scenario import Scenario


def plan(scenario: Scenario, folder: Path, size: int) -> Plan:
    """Of one worker and `size` parameters; who asks for it closes it."""
    return Plan(
        scenario=scenario, size=size, size_bytes=4 * size, transport=SharedMemory(1, size), run_dir=folder,
        resumed=None, elapsed_ns=0, parts=folder, logs=folder, path=(), trusted=False, hold=SharedHold(folder),
        stand_in=0,
    )  # fmt: skip
