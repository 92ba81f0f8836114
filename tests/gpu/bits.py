"""Section 3: one worker, deterministic algorithms: processes, simulation, a plain loop on the device, and the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asgd_lab.backends import devices
from asgd_lab.backends.run import execute
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from asgd_lab.tasks.flat import Layout
from tests.gpu import networks
from tests.gpu.place import Failed, Place

DROPOUT, CPU = "with dropout", "process on the CPU"
PAIRS = (("process", "plain loop"), ("simulation", "process"), ("process", CPU))
MOST = 1e-4  # by which two ways of the same arithmetic may differ on one device


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """A row a pair; it fails where two that should compute alike on the device differ by more than rounding."""
    devices.use(place.device, deterministic=True)
    steps = place.size(100, 8)
    wrong = []
    for name, task in _tasks(place).items():
        backends = {
            "process": place.backend(deterministic=True),
            "simulation": place.backend("sim", deterministic=True),
            CPU: {"name": "process"},
        }
        vectors = {
            what: _lab(task, steps, backend, folder / f"{name}-{what}")
            for what, backend in backends.items()
            if (name, what) != (DROPOUT, CPU)
        }
        vectors["plain loop"] = _plain(task, steps, place)
        for one, other in PAIRS:
            if name == DROPOUT and other == CPU:
                continue  # which has other random numbers
            a, b = vectors[one], vectors[other]
            difference = float(np.abs(a - b).max())
            yield {
                "what": f"{name}: {one}, {other}", "steps": steps, "largest_difference": difference,
                "same_bits": a.tobytes() == b.tobytes(), "sha256": [_sha256(a), _sha256(b)],
            }  # fmt: skip
            if difference > MOST and other != CPU:
                wrong.append(f"{name}: {one} and {other} differ by {difference:.1e}")
    if wrong:
        raise Failed("; ".join(wrong))


def _tasks(place: Place) -> dict[str, dict[str, Any]]:
    sizes = place.size((512, 32, 32), (16, 8, 4))
    convolutions = networks.of_images("Conv", *sizes)
    return {
        "convolutions": convolutions,
        DROPOUT: networks.of_images("Dropping", *sizes),
        "transformer": networks.transformer(place),
    }


def _lab(task: dict[str, Any], steps: int, backend: dict[str, Any], out: Path) -> np.ndarray[Any, Any]:
    stated = Scenario.model_validate({
        "name": "bits", "task": task, "algorithm": {"name": "sgd", "n_sync": steps}, "budget": {"minibatches": steps},
        "backend": backend, "hardware": {"compute": {"step_s": 0.001}},
    })  # fmt: skip
    execute(stated, out)
    return final_params(out)


def _plain(task: dict[str, Any], steps: int, place: Place) -> np.ndarray[Any, Any]:
    """The parameters as the server has them, which adds what the worker changed: that rounding is done here too."""
    loop = networks.Loop(task, place.device)
    for step in range(steps):
        loop.step(step)
    after = loop.after()
    layout = Layout.of(each.shape for each in after)
    vector = torch.zeros(layout.size)
    for view, start, end in zip(layout.views(vector), loop.before, after, strict=True):
        view.copy_(start + (end - start))
    return vector.numpy()


def _sha256(vector: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(vector.tobytes()).hexdigest()[:12]
