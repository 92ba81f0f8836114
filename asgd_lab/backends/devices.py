"""The devices of workers: the CPU, or GPUs of this node, which several workers may share; and their free memory.

With the environment variable ASGD_LAB_GPUS_STAND_IN set to a number, the CPU stands in for so many GPUs: everything
except CUDA itself can then be tried on a machine without one. The summary of such a run says so.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from asgd_lab.errors import ScenarioError, shortened
from asgd_lab.free_memory import free_memory_bytes
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.base import CPU
from asgd_lab.tasks.torch_settings import choose_algorithms

STAND_IN = "ASGD_LAB_GPUS_STAND_IN"


def stand_in() -> int:
    """The number of GPUs that the CPU stands in for; 0: none. A `ScenarioError` names a variable that is no number."""
    text = os.environ.get(STAND_IN) or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise ScenarioError(f"{STAND_IN}: must be a number of GPUs, at most 9999; got {shortened(text, 40)!r}")
    return int(text)


def imagine(gpus: int) -> None:
    """Let the CPU stand in for so many GPUs, as in the process that started this one."""
    os.environ[STAND_IN] = str(gpus)


def count() -> int:
    """The number of GPUs that workers may use."""
    return stand_in() or torch.cuda.device_count()


def number(worker: int) -> int:
    """The number of a worker's GPU, from 0: workers take GPUs in turn."""
    return worker % count()


def of(scenario: Scenario, worker: int) -> torch.device:
    """The device of a worker of the scenario."""
    if scenario.backend.device != "cuda" or stand_in():
        return CPU
    return torch.device("cuda", number(worker))


def home(scenario: Scenario) -> torch.device:
    """The device of a process that computes for all workers: a simulation, a replay, evaluations after a real run."""
    return of(scenario, 0)


def use(device: torch.device, deterministic: bool) -> None:
    """Make the device this process's current one, so that a user's `cuda` means this device too.

    float32 operations use no shorter format. With `deterministic`, operations without a deterministic algorithm fail.
    """
    if device.type != "cuda":
        return
    # CUDA reads it at a process's first matrix product, and never again: a later run may be deterministic.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # it would choose algorithms by measured times, and so by chance
    choose_algorithms(deterministic)


def release() -> None:
    """Release the GPU memory that torch's allocator caches in this process."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def check(scenario: Scenario) -> None:
    """A `ScenarioError` if the scenario needs GPUs and there are none."""
    if scenario.backend.device == "cuda" and not count():
        raise ScenarioError.at("backend.device", "cuda needs a GPU and torch finds none here; use cpu or emulated")


def free_bytes(gpu: int) -> int:
    """The free memory of a GPU; for a stand-in its share of the machine's free memory."""
    if stand_in():
        return free_memory_bytes() // count()
    release()
    return int(torch.cuda.mem_get_info(gpu)[0])


def facts(scenario: Scenario) -> dict[str, Any]:
    """The summary's facts on the GPUs of a run; {} without GPUs."""
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
