"""Section 6: the 61 million parameters of Krizhevsky et al. 2012 at batch 128: is n_fetch = n_push = 1 too dear?

Paine et al. 2013 say that it does not suit GPUs because of the transfer. An exchange is all that lies between the end
of one Train and the start of the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asgd_lab.backends.build import build_task
from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.scenario import Scenario
from tests.benchmarks.sync import baseline
from tests.gpu import networks
from tests.gpu.place import Place, rounded, spread, synchronize


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """The two baselines, then a row a length of round: the share of computing, seconds of an exchange over theirs."""
    size = build_task(_scenario(1, 1, 1, place), checked=True).size
    baselines = {"in_host_memory": baseline(size, 12), "through_the_device": _staged(size, place)}
    yield _told(baselines, size)
    runs = place.size(((1, 1, 50), (1, 10, 100), (1, 100, 220), (1, 600, 660)), ((1, 1, 4), (2, 2, 8)))
    for workers, n_sync, minibatches in runs:
        out = folder / f"{workers}-{n_sync}"
        summary = execute(_scenario(workers, n_sync, minibatches, place), out)
        effects = tables.read(out, "effects")
        gaps, computing = _gaps(effects), _computing(effects)
        row = {
            "what": f"{workers} workers, n_sync {n_sync}", "computing_share": rounded(computing),
            "minibatches_per_s": rounded(summary["minibatches_per_s"]), "startup_s": rounded(summary["startup_s"]),
            "staleness_mean": rounded(summary["staleness"]["mean"]), "minibatch_s": spread(_steps(effects)),
        }  # fmt: skip
        if gaps:
            row["exchange_s"] = spread(gaps)
            row["exchange_over"] = {
                name: rounded(float(np.median(gaps) / np.median(seconds))) for name, seconds in baselines.items()
            }
        yield row
    yield _told({"in_host_memory": baseline(size, 12), "through_the_device": _staged(size, place)}, size)


def _told(baselines: dict[str, list[float]], size: int) -> dict[str, Any]:
    """Measured first and last: the machine may have changed."""
    what = f"two copies and one axpy, {size:,} parameters, s"
    return {"what": what, **{name: spread(seconds) for name, seconds in baselines.items()}}


def _scenario(workers: int, n_sync: int, minibatches: int, place: Place) -> Scenario:
    """On the CPU another network, a small one."""
    model, *sizes = place.size(("krizhevsky", 256, 224, 128, 1000), ("small", 8, 16, 2, 10))
    task = networks.of_images(model, *sizes)
    return Scenario.model_validate({
        "name": "exchange", "task": task | {"optimizer": {"name": "SGD", "lr": 1e-4, "momentum": 0.9}},
        "algorithm": {"name": "asgd", "n_sync": n_sync}, "workers": workers, "budget": {"minibatches": minibatches},
        "backend": place.backend(),
    })  # fmt: skip


def _gaps(effects: Any) -> list[float]:
    """Seconds from the end of one Train to the start of the next, of all workers, without each one's first."""
    found: list[float] = []
    for _, trains in effects[effects["kind"] == "train"].groupby("worker"):
        trains = trains.sort_values("start_s")
        found += (trains["start_s"].to_numpy()[1:] - trains["end_s"].to_numpy()[:-1]).tolist()[1:]
    return found


def _computing(effects: Any) -> float:
    """The share of the workers' time, from the first Train's start to the last one's end, that they train."""
    trains = effects[effects["kind"] == "train"]
    by_worker = trains.groupby("worker")
    return float(
        (trains["end_s"] - trains["start_s"]).sum() / (by_worker["end_s"].max() - by_worker["start_s"].min()).sum()
    )


def _steps(effects: Any) -> list[float]:
    trains = effects[effects["kind"] == "train"]
    return ((trains["end_s"] - trains["start_s"]) / trains["steps"]).tolist()


def _staged(size: int, place: Place) -> list[float]:
    """Seconds of a copy from the device, an axpy in host memory, and a copy back: pinned memory, one thread."""
    on_device = torch.ones(size, device=place.device)
    host, server = (torch.ones(size, pin_memory=place.gpu) for _ in range(2))
    found = []
    for _ in range(12):
        began = time.perf_counter()
        host.copy_(on_device, non_blocking=True)
        synchronize(place)
        server.add_(host, alpha=-0.5)
        on_device.copy_(server, non_blocking=True)
        synchronize(place)
        found.append(time.perf_counter() - began)
    return found[2:]
