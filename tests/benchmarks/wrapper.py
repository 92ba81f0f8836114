"""Wrapper: minibatches/s on real processes with an algorithm that a user's module wraps, over those without the wrapper

The wrapper is as thick as one can be: a program, all methods of a gate, and a link that only pass on what is built in.
Both run alternately, as pairs; the interval is that of the median over all pairs.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asgd_lab import extending as lab
from asgd_lab.backends.run import execute
from asgd_lab.protocol import rules
from asgd_lab.scenario import Scenario
from tests.benchmarks.report import Row

PAIRS = 15
LENET = {
    "name": "classification", "dataset": "tests.benchmarks.wrapper:images", "model": "lenet", "batch_size": 32,
    "optimizer": {"name": "SGD", "lr": 0.01, "momentum": 0.9},
}  # fmt: skip
TINY = {"name": "quadratic", "curvature": [1.0], "optimizer": {"name": "SGD", "lr": 0.01}}
TASKS = {"LeNet workers": (LENET, 800), "workers that have next to nothing to compute": (TINY, 16_000)}


class PassingOn(lab.Gate):
    """A gate that asks another one everything."""

    other: lab.Gate

    def may_fetch(self, worker: int, server: lab.View) -> bool:
        return self.other.may_fetch(worker, server)

    def lease(self, worker: int, server: lab.View) -> int:
        return self.other.lease(worker, server)

    def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
        return self.other.on_push(push, server)

    def complete(self, server: lab.View) -> bool:
        return self.other.complete(server)

    def stops(self, server: lab.View) -> Iterable[int]:
        return self.other.stops(server)

    def wake_ns(self, server: lab.View) -> int | None:
        return self.other.wake_ns(server)


class Wrapped(lab.Ruled):
    """Asynchronous SGD through the wrapper."""

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        """The built-in sentence, with a program and a gate that pass on."""
        said = lab.blocking(self, lab.Gate(), rule)

        def program(replica: lab.Replica) -> lab.Program:
            yield from said.program(replica)

        return dataclasses.replace(said, program=program, gate=PassingOn(said.gate))


class Scaled(lab.Link):
    """Scale through the wrapper."""

    def build(self, workers: int) -> lab.Rule:
        """The built-in link, with a step that passes on."""
        said = rules.scale(1.0 / workers)

        def step(*arguments: Any) -> lab.Scaled:
            return said.step(*arguments)

        return dataclasses.replace(said, step=step)


def images() -> dict[str, Tensor]:
    """Noise of the size of LeNet's images, which the scenario names."""
    generator = torch.Generator().manual_seed(0)

    def some(count: int) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 1, 28, 28, generator=generator), torch.randint(10, (count,), generator=generator)

    (train, labels), (test, test_labels) = some(1024), some(64)
    return {"train_images": train, "train_labels": labels, "test_images": test, "test_labels": test_labels}


def rate(task: dict[str, Any], budget: int, *, wrapped: bool) -> float:
    """Minibatches/s of two workers."""
    algorithm: dict[str, Any] = {"name": "asgd", "n_sync": 1}
    if wrapped:
        here = "tests.benchmarks.wrapper"
        algorithm |= {"name": f"{here}:Wrapped", "rule": [{"name": f"{here}:Scaled"}]}
    scenario = Scenario.model_validate(
        {
            "name": "wrapper", "task": task, "algorithm": algorithm, "workers": 2, "budget": {"minibatches": budget},
            "backend": "process", "record": "summary",
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return float(execute(scenario, Path(folder) / "run")["minibatches_per_s"])


def interval(values: list[float]) -> tuple[float, float]:
    """The 95% interval of the median, by 10,000 resamplings from a fixed seed."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return float(low), float(high)


def measure(tiny: bool) -> Iterator[Row]:
    """The ratios, the interval of their median, and the rate without the wrapper."""
    for who, (task, whole) in list(TASKS.items())[1 if tiny else 0 :]:
        budget, pairs = (40, 2) if tiny else (whole, PAIRS)
        plain, ratios = [], []
        for index in range(pairs):
            order = (False, True) if index % 2 else (True, False)
            rates = {wrapped: rate(task, budget, wrapped=wrapped) for wrapped in order}
            plain.append(rates[False])
            ratios.append(rates[True] / rates[False])
        what = f"minibatches/s of two {who}, wrapped over built-in"
        yield Row(f"{what} (wanted: at least 0.97)", ratios, "times")
        low, high = interval(ratios)
        yield Row(f"{what}: the 95% interval of that median begins", [low], "times", told=False)
        yield Row(f"{what}: the 95% interval of that median ends", [high], "times", told=False)
        yield Row(f"minibatches/s of two {who}", plain, told=False)
