"""The machine's load during a measured run: the CPU time of other processes, and the time stolen by its host."""

from __future__ import annotations

import time
from typing import NamedTuple

import psutil

from asgd_lab import cgroups

BUSY = 0.05  # of the machine's cores; above it a measurement is of a slower machine than the one that it names


class Load(NamedTuple):
    """Shares of the CPU time of all cores, or of a container's quota if others take a larger share of that."""

    others: float  # taken by processes that this one has not started
    steal: float  # taken by the host of a virtual machine

    def __str__(self) -> str:
        return f"beside other work: others took {self.others:.0%} of the machine's cores, its host {self.steal:.0%}"

    @property
    def is_busy(self) -> bool:
        """Whether the load is too high for a measurement."""
        return self.others + self.steal > BUSY


class LoadMeter:
    """Measures the load between its construction and `read`."""

    def __init__(self) -> None:
        self._began = _now()

    def read(self) -> Load:
        """The load since the construction; a child of ours that has ended and is not reaped yet counts as another."""
        began, ended = self._began, _now()
        possible_s = (ended.time_s - began.time_s) * (psutil.cpu_count() or 1)
        if possible_s <= 0:
            return Load(0.0, 0.0)
        own_s = ended.own_s - began.own_s
        others = [0.0, (ended.busy_s - began.busy_s - own_s) / possible_s]
        if began.quota is not None and ended.quota is not None:
            allowed_s = (ended.time_s - began.time_s) * ended.quota.cores
            others.append((ended.quota.taken_s - began.quota.taken_s - own_s) / allowed_s)
        return Load(max(others), max(0.0, ended.steal_s - began.steal_s) / possible_s)


class _Times(NamedTuple):
    time_s: float
    busy_s: float  # of all processes
    steal_s: float
    own_s: float
    quota: cgroups.Quota | None


def _now() -> _Times:
    all_ = psutil.cpu_times()
    busy_s = sum(getattr(all_, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return _Times(time.monotonic(), busy_s, getattr(all_, "steal", 0.0), _own_s(), cgroups.cpu_quota())


def _own_s() -> float:
    """CPU seconds of this process and its descendants: the fork server, and the workers that it forked."""
    me = psutil.Process()
    return sum(_cpu_s(process) for process in [me, *me.children(recursive=True)])


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system
