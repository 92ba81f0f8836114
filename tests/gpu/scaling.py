"""Section 5: 1, 2, 4 and 8 workers that share one GPU: minibatches a second, staleness, who is busy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.scenario import Scenario
from tests.gpu import networks
from tests.gpu.place import Place, rounded, spread
from tests.gpu.watching import Watching

N_SYNC = 10
WINDOWS = 10  # of a run after its first fifth, in each of which minibatches are counted
LAUNCHES = 2  # minibatches, whose kernels a queue of 1,024 holds


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """A row a network and number of workers."""
    images = place.size("ResNet-18", "three convolutions")
    tasks = {images: networks.resnet(place), "transformer": networks.transformer(place)}
    for name, task in tasks.items():
        device_s = _device_s(task, place)
        alone = 0.0
        for workers in place.size((1, 8, 4, 2), (1, 2)):
            watching, out = Watching(place), folder / f"{workers}-{name}"
            summary = execute(_scenario(task, workers, place), out, watching)
            rates = _rates(out, summary["makespan_s"])
            mean = float(np.mean(rates))
            alone = alone or mean
            row = {
                "what": f"{name}, {workers} workers, n_sync {N_SYNC}", "minibatches_per_s": spread(rates),
                "speed_up": rounded(mean / alone),
                "staleness": summary["staleness"], "utilisation": summary["utilisation"],
                "startup_s": rounded(summary["startup_s"]), "gpus": summary["gpus"], **watching.facts(),
            }  # fmt: skip
            if device_s:
                busy = float(np.median(device_s)) * mean
                row |= {"device_s": spread(device_s), "gpu_busy_by_events": rounded(busy)}
            yield row


def _scenario(task: dict[str, Any], workers: int, place: Place) -> Scenario:
    return Scenario.model_validate({
        "name": "scaling", "task": task, "algorithm": {"name": "asgd", "n_sync": N_SYNC}, "workers": workers,
        "budget": {"seconds": place.size(1.5, 0.5)}, "backend": place.backend(),
    })  # fmt: skip


def _rates(out: Path, makespan_s: float) -> list[float]:
    """Minibatches a second in equal windows; workers begin within the first fifth."""
    ends = tables.read(out, "minibatches")["time_s"].to_numpy()
    edges = np.linspace(makespan_s / 5, makespan_s, WINDOWS + 1)
    counts, _ = np.histogram(ends, edges)
    return (counts / np.diff(edges)).tolist()


def _device_s(task: dict[str, Any], place: Place) -> list[float]:
    """Seconds of a minibatch's kernels, back to back: they are queued while the device sleeps. By CUDA events."""
    if not place.gpu:
        return []
    loop = networks.Loop(task, place.device)
    for step in range(5):
        loop.step(step)
    found = []
    for repeat in range(7):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(200_000_000)  # cycles: a tenth of a second
        begun.record()
        for step in range(LAUNCHES):
            loop.step(LAUNCHES * repeat + step)
        ended.record()
        torch.cuda.synchronize()
        found.append(begun.elapsed_time(ended) / 1e3 / LAUNCHES)
    return found
