"""`python -m tests.gpu.copier`: a process that times copies between its device and host memory, as it is told.

A line of JSON in, {"bytes", "repeats"}; a line out: seconds of each copy, by kind and direction. Ways take turns.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asgd_lab.backends.real.transports.memory import Stack
from asgd_lab.backends.real.transports.staging import Staging
from tests.gpu.place import Place, find, synchronize

WARM_UP = 2
Way = Callable[[], object]
_registered: list[dict[str, Way]] = []  # what CUDA knows by its address must stay there


def main() -> None:
    """Until its input ends."""
    place = find()
    torch.set_num_threads(1)
    torch.zeros(1, device=place.device)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(place, **json.loads(line))), flush=True)


def timed(place: Place, bytes: int, repeats: int) -> dict[str, Any]:
    """Seconds of each way's copies of so many bytes, and what the product's staging did for its own."""
    stack = Stack("gpu-copies", 2, bytes // 4)
    on_device = torch.ones(bytes // 4, device=place.device)
    ways, staging = _ways(place, stack, on_device)
    for way in ways.values():
        for _ in range(WARM_UP):
            way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            synchronize(place)
            began = time.perf_counter()
            way()
            synchronize(place)
            found[name].append(time.perf_counter() - began)
    _registered.append(ways)
    registered, through_buffer = staging.counts()
    facts = {"registered": registered, "through_buffer": through_buffer, "refused": staging.refused}
    return {"seconds": found, "staging": facts}


def _ways(place: Place, stack: Stack, on_device: Tensor) -> tuple[dict[str, Way], Staging]:
    mailbox, version = (stack.vector(index, writable=True).fill_(1.0) for index in range(2))
    staging = Staging(place.device)
    ways: dict[str, Way] = {
        "product, to the host": lambda: staging.to_host(on_device, mailbox).wait(),
        "product, to the device": lambda: staging.to_device(version, on_device).wait(),
    }
    hosts = {"pageable": torch.ones_like(on_device, device="cpu")}
    if place.gpu:
        hosts["pinned"] = torch.ones(len(on_device), pin_memory=True)
        shared = Stack("gpu-registered", 1, len(on_device)).vector(0, writable=True).fill_(1.0)
        runtime: Any = torch.cuda.cudart()
        if not int(runtime.cudaHostRegister(shared.data_ptr(), shared.nbytes, 0)):
            hosts["registered"] = shared
    for kind, host in hosts.items():
        ways[f"{kind}, to the host"] = lambda host=host: host.copy_(on_device, non_blocking=True)
        ways[f"{kind}, to the device"] = lambda host=host: on_device.copy_(host, non_blocking=True)
    return ways, staging


if __name__ == "__main__":
    main()
