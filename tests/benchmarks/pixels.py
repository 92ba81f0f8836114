"""Pixels: the conversion of stored bytes at each minibatch, as a share of a minibatch of LeNet, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from asgd_lab.tasks import build
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.samples import pick
from tests.benchmarks.gradients import scenario
from tests.benchmarks.report import Row

SHAPES = {"28 by 28, one channel": (1, 28, 28), "32 by 32, three channels": (3, 32, 32)}
SAMPLES, BATCH, TIMES, REPEATS = 10_000, 64, 200, 15


def made(shape: tuple[int, ...], samples: int) -> Data:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, *shape), dtype=torch.uint8, generator=draw)
    labels = torch.arange(samples) % 10
    standard = torch.tensor([[120.0], [60.0]]).expand(2, shape[0]).contiguous()
    parts = {"images": images, "labels": labels}
    return {f"{split}_{part}": each for split in ("train", "test") for part, each in parts.items()} | {
        "standard": standard
    }


def seconds(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def measure(tiny: bool) -> Iterator[Row]:
    """Bytes against the same pixels as float32, already standardised."""
    samples, times, repeats = (200, 2, 1) if tiny else (SAMPLES, TIMES, REPEATS)
    for name, shape in SHAPES.items():
        stored = made(shape, samples)
        ready = {**stored, "train_images": pick(stored, "train", torch.arange(samples))}
        del ready["standard"]
        task = build(scenario("lenet", BATCH, 1, 1, "sequential").task, 0, stored)
        learner = task.learner(0, task.initial())
        index = torch.randperm(samples, generator=torch.Generator().manual_seed(1))[:BATCH]
        found: list[tuple[float, float, float]] = []
        for repeat in range(repeats + 1):  # the first one warms up
            step = repeat * times % (samples // BATCH - 2) if not tiny else 0
            of_bytes = seconds(lambda: pick(stored, "train", index), times)  # noqa: B023
            of_floats = seconds(lambda: pick(ready, "train", index), times)  # noqa: B023
            found.append((of_bytes, of_floats, seconds(lambda: learner.minibatch(step), max(1, times // 10))))  # noqa: B023
        found = found[1:]
        yield Row(f"minibatch of {BATCH} from bytes, {name}", [1e6 * one for one, _, _ in found], "µs", told=False)
        yield Row(f"minibatch of {BATCH} from float32, {name}", [1e6 * one for _, one, _ in found], "µs", told=False)
        shares = [100 * (one - other) / whole for one, other, whole in found]
        yield Row(f"conversion of bytes, {name}", shares, "% of a minibatch of LeNet")
