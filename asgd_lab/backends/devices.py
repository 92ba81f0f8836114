"""Which device computes: the CPU, or a GPU of this node that several workers may share; and what it has free.

With the environment variable ASGD_LAB_GPUS_STAND_IN set to a number, the CPU stands in for so many GPUs: everything but
CUDA itself can then be tried on a machine without one. The summary of such a run says so.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from asgd_lab.errors import ScenarioError
from asgd_lab.record.machine import free_memory_bytes
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import CPU
from asgd_lab.tasks.torch_settings import choose_algorithms

STAND_IN = "ASGD_LAB_GPUS_STAND_IN"


def stand_in() -> int:
    """How many GPUs the CPU stands in for; 0: none."""
    text = os.environ.get(STAND_IN, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def imagine(gpus: int) -> None:
    """Let the CPU stand in for so many, as in the process that started this one."""
    os.environ[STAND_IN] = str(gpus)


def count() -> int:
    """The GPUs that workers may use."""
    return stand_in() or torch.cuda.device_count()


def number(worker: int) -> int:
    """Which GPU a worker computes on, from 0: they take turns."""
    return worker % count()


def of(scenario: Scenario, worker: int) -> torch.device:
    """Where a worker of the scenario computes."""
    if scenario.backend.device != "cuda" or stand_in():
        return CPU
    return torch.device("cuda", number(worker))


def home(scenario: Scenario) -> torch.device:
    """Where one process computes for all: a simulation, a replay, and the evaluations after a real run."""
    return of(scenario, 0)


def use(device: torch.device, deterministic: bool) -> None:
    """Make it this process's own: what a user's model puts on `cuda` is then there too.

    float32 is float32 and no shorter format. A process that computes deterministically fails where torch cannot.
    """
    if device.type != "cuda":
        return
    # Read when a process first multiplies matrices, and never again: another run of it may be deterministic.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # which would choose by times, and so by chance
    choose_algorithms(deterministic)


def release() -> None:
    """Give back to others the memory of GPUs that this process keeps for what it will make next."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def check(scenario: Scenario) -> None:
    """Refuse GPUs where there are none."""
    if scenario.backend.device == "cuda" and not count():
        raise ScenarioError.at("backend.device", "cuda needs a GPU and torch finds none here; use cpu or emulated")


def free_bytes(gpu: int) -> int:
    """The memory that is free on a GPU; of a stand-in its part of the machine's."""
    if stand_in():
        return free_memory_bytes() // count()
    release()
    return int(torch.cuda.mem_get_info(gpu)[0])


def facts(scenario: Scenario) -> dict[str, Any]:
    """What the summary says of the GPUs of a run; nothing of a run without."""
    if scenario.backend.device != "cuda":
        return {}
    if stand_in():
        return {"gpus": {"stand_in": stand_in()}}
    used = min(count(), scenario.workers) if scenario.backend.execution.apart else 1
    found = [torch.cuda.get_device_properties(gpu) for gpu in range(used)]
    return {
        "gpus": {
            "names": [each.name for each in found],
            "memory_bytes": [each.total_memory for each in found],
            "cuda": torch.version.cuda,
        }
    }
