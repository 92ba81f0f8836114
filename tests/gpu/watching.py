"""Looks at a run while it goes on: how busy the GPU is by NVML, its memory, and the processor time of the server."""

from __future__ import annotations

import contextlib
import importlib
import math
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from asgd_lab.backends.outcome import Progress
from tests.backends.chaos import members
from tests.gpu.place import Place, rounded, spread

EVERY_S = 0.1


@dataclass
class Watching:
    """A watch: called by the parent of the run, a few times a second."""

    place: Place
    busy: list[float] = field(default_factory=list)  # shares, each over NVML's last period
    memory_bytes: int = 0  # the most that was used of the GPU, by whomever
    _server: psutil.Process | None = None
    _first: tuple[float, float] | None = None
    _last: tuple[float, float] | None = None
    _next: float = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if not progress.version or now < self._next:
            return
        self._next = now + EVERY_S
        if (seen := used(self.place)) is not None:
            share, memory_bytes = seen
            self.busy.append(share)
            self.memory_bytes = max(self.memory_bytes, memory_bytes)
        if self._server is None:
            self._server = next(iter(members("server")), None)
        if self._server is not None:
            with contextlib.suppress(psutil.Error):
                times = self._server.cpu_times()
                self._last = now, times.user + times.system
                self._first = self._first or self._last

    def facts(self) -> dict[str, Any]:
        """What was seen; NVML's share is of the time in which any kernel ran."""
        found: dict[str, Any] = {"gpu_busy_by_nvml": spread(self.busy) if self.busy else "no GPU"}
        found["gpu_memory_gb"] = round(self.memory_bytes / 1e9, 2)
        if self._first and self._last and self._last[0] > self._first[0]:
            begun, ended = self._first, self._last
            found["server_cpu_share"] = rounded((ended[1] - begun[1]) / (ended[0] - begun[0]))
        return found


def used(place: Place) -> tuple[float, int] | None:
    """The share of time in which the GPU was busy lately, and the bytes of its memory that are used."""
    if not place.gpu:
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        gpu = nvml.nvmlDeviceGetHandleByIndex(0)
        return nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100, int(nvml.nvmlDeviceGetMemoryInfo(gpu).used)
    except Exception:  # it is missing, or this GPU or driver tells it nothing
        free, total = torch.cuda.mem_get_info()
        return math.nan, total - free
