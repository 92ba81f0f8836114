"""A plan of processes without processes: what a part of the process backend needs to be timed by itself."""

from __future__ import annotations

from pathlib import Path

from asgd_lab.backends.real.memory import SharedTensors, Stack
from asgd_lab.backends.real.orphans import SharedHold
from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.scenario import Scenario


def plan(scenario: Scenario, folder: Path, size: int) -> Plan:
    """Of one worker and `size` parameters; who asks for it closes it."""
    return Plan(
        scenario=scenario, size=size, size_bytes=4 * size, slots=Stack("slots", 3, size),
        mailboxes=Stack("mailboxes", 1, size), states=Stack("states", 0, size), scalars=Stack("scalars", 0, 2),
        copies=Stack("copies", 0, size), data=SharedTensors({}),
        progress=Words(1), run_dir=folder, resumed=None, elapsed_ns=0, parts=folder, logs=folder, path=(),
        trusted=False, hold=SharedHold(folder), stand_in=0,
    )  # fmt: skip
