"""Section 10: simulation with 1 to 128 replicas on the device: replica-steps a second, memory, the largest difference.

Each rate is of the minibatches by which a long run is longer than a short one, so that neither start nor evaluation is
in it. Ways of computing take turns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.gpu import networks
from tests.gpu.place import Place, rounded, spread, synchronize

N_SYNC = 5
WAYS = ("sequential", "batched")


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """The bare loop, then a row a number of replicas."""
    task = networks.of_images("Conv", *place.size((2048, 32, 32), (32, 8, 4)))
    yield {"what": "bare loop, steps/s", "steps_per_s": spread(_bare(task, place))}
    _timed(_scenario(task, 1, 2, "sequential", place), folder / "warm-up")
    for replicas in place.size((1, 8, 32, 128), (1, 4)):
        short, long = (replicas * N_SYNC * rounds for rounds in place.size((1, 1 + max(2, 64 // replicas)), (1, 5)))
        row: dict[str, Any] = {"what": f"{replicas} replicas, replica-steps/s"}
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        ends: dict[str, Any] = {}
        for repeat in range(2):
            for way in WAYS:
                if way in row:
                    continue
                if place.gpu:
                    torch.cuda.reset_peak_memory_stats()
                try:
                    seconds = [
                        _timed(
                            _scenario(task, replicas, count, way, place), folder / f"{replicas}-{way}-{repeat}-{count}"
                        )
                        for count in (short, long)
                    ]
                except ScenarioError as error:
                    row[way] = f"refused: {error}"
                    continue
                rates[way].append((long - short) / (seconds[1] - seconds[0]))
                ends[way] = final_params(folder / f"{replicas}-{way}-{repeat}-{long}")
                if place.gpu:
                    row[f"{way}_memory_mb"] = rounded(torch.cuda.max_memory_allocated() / 1e6)
        row |= {way: spread(found) for way, found in rates.items() if found}
        if len(ends) == len(WAYS):
            row["largest_difference"] = float(np.abs(ends["sequential"] - ends["batched"]).max())
        yield row


def _scenario(task: dict[str, Any], replicas: int, minibatches: int, numerics: str, place: Place) -> Scenario:
    return Scenario.model_validate({
        "name": "replicas", "task": task, "algorithm": {"name": "asgd", "n_sync": N_SYNC}, "workers": replicas,
        "budget": {"minibatches": minibatches}, "backend": place.backend("sim", numerics=numerics),
        "hardware": {"compute": {"step_s": 0.01}}, "record": "summary",
    })  # fmt: skip


def _timed(scenario: Scenario, out: Path) -> float:
    began = time.perf_counter()
    execute(scenario, out)
    return time.perf_counter() - began


def _bare(task: dict[str, Any], place: Place) -> list[float]:
    """Steps a second of a plain loop that reads each loss, as the lab does."""
    loop, steps, found = networks.Loop(task, place.device), place.size(200, 5), []
    for step in range(3):
        loop.step(step)
    for repeat in range(5):
        synchronize(place)
        began = time.perf_counter()
        for step in range(steps):
            loop.step(repeat * steps + step).item()
        synchronize(place)
        found.append(steps / (time.perf_counter() - began))
    return found
