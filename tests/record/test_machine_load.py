"""What is said of a machine that does something else beside a measured run."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from asgd_lab import cgroups
from asgd_lab.backends.run import execute
from asgd_lab.cgroups import Quota
from asgd_lab.record import machine_load
from asgd_lab.record.machine_load import Load, LoadMeter

from ..backends.scenarios import scenario

Cpu = namedtuple("Cpu", ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"])
SPIN = "import time\nbegan = time.process_time()\nwhile time.process_time() < began + {seconds}: pass\n"


def cpu(**seconds: float) -> Cpu:
    return Cpu(**{**dict.fromkeys(Cpu._fields, 0.0), **seconds})


@pytest.mark.parametrize(
    ("before", "after", "own_s", "expected"),
    [
        (cpu(user=5.0), cpu(user=8.0), 3.0, Load(0.0, 0.0)),
        (cpu(user=5.0), cpu(user=8.0, system=1.0), 2.0, Load(0.1, 0.0)),
        (cpu(idle=5.0), cpu(idle=9.0, iowait=7.0), 0.0, Load(0.0, 0.0)),
        (cpu(steal=1.0), cpu(steal=5.0), 0.0, Load(0.0, 0.2)),
    ],
)
def test_others_are_what_is_neither_idle_nor_ours(
    monkeypatch: pytest.MonkeyPatch, before: Cpu, after: Cpu, own_s: float, expected: Load
) -> None:
    own, clock, times = iter([1.0, 1.0 + own_s]), iter([100.0, 110.0]), iter([before, after])
    monkeypatch.setattr(machine_load, "_own_s", lambda: next(own))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    assert LoadMeter().read() == pytest.approx(expected)


def test_of_a_container_others_are_judged_by_its_quota_too(monkeypatch: pytest.MonkeyPatch) -> None:
    own, clock, times = iter([0.0, 1.0] * 2), iter([0.0, 10.0] * 2), iter([cpu(), cpu(user=3.0)] * 2)
    quotas = iter([Quota(0.5, 7.0), Quota(0.5, 10.0), Quota(0.5, math.nan), Quota(0.5, math.nan)])
    monkeypatch.setattr(machine_load, "_own_s", lambda: next(own))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 64)
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: next(quotas))
    assert LoadMeter().read() == pytest.approx(Load(2.0 / 5.0, 0.0))  # 2 s of the 5 s that the quota allows
    assert LoadMeter().read() == pytest.approx(Load(2.0 / 640.0, 0.0))  # what the container took cannot be read


def test_what_our_own_children_compute_is_ours() -> None:
    began = machine_load._own_s()
    subprocess.run([sys.executable, "-c", SPIN.format(seconds=0.3)], check=True)
    assert machine_load._own_s() - began > 0.25  # the kernel counts in hundredths


@pytest.mark.xdist_group("process")
def test_a_real_run_records_the_load_beside_it(tmp_path: Path) -> None:
    summary = execute(scenario(backend={"name": "process"}, budget={"minibatches": 200}), tmp_path / "run")
    assert set(summary["machine_load"]) == {"others", "steal"}
    assert 0.0 <= Load(**summary["machine_load"]).others <= 1.0
