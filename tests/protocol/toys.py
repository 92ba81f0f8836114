"""A task whose parameters count: element w of the vector is the number of minibatches of worker w in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from asgd_lab.algorithms import ALGORITHMS
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.messages import PushRequest
from asgd_lab.protocol.parameters import Memory
from asgd_lab.protocol.rules import Context
from asgd_lab.tasks.base import Bufferless

COUNTERS = 16  # more workers than any test has


def pushed(worker: int) -> PushRequest:
    """A push of one minibatch."""
    return PushRequest(worker, 1, 1, 0, 1, 0.0, 0.0)


def merging(count: int) -> Context:
    """The context of a step that merges so many pushes."""
    return Context(0, [pushed(worker) for worker in range(count)], torch.empty(0), lambda _: torch.empty(0))


class Unwritten(Memory):
    """Memory that is NaN before it is used."""

    def slot(self, number: int) -> Tensor:
        return torch.full_like(self._like, torch.nan)


class CountingLearner:
    def __init__(self, worker: int, params: Tensor, gradients: Tensor | None) -> None:
        self.worker, self.params, self.gradients = worker, params, gradients
        self.steps: list[int] = []

    def minibatch(self, step: int) -> tuple[float, float]:
        self.steps.append(step)
        self.params[self.worker] += 1.0
        if self.gradients is not None:
            self.gradients[self.worker] -= 1.0
        return 1.0, 0.5

    def buffers(self) -> dict[str, Tensor]:
        return {}

    def reset_momentum(self) -> None:
        pass

    def warm_up(self) -> None:
        pass


class Counting(Bufferless):
    size = COUNTERS
    size_bytes = 4 * COUNTERS

    def initial(self) -> Tensor:
        return torch.zeros(COUNTERS)

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> CountingLearner:
        return CountingLearner(worker, params, gradients)

    def evaluate(self, params: Tensor, *_: object) -> list[tuple[str, str, float]]:
        return [("test", "sum", float(params.sum()))]


def built(keys: Mapping[str, Any], workers: int = 1) -> Algorithm:
    """The algorithm that these keys of a scenario state."""
    configuration: Any = ALGORITHMS.find(keys["name"]).model_validate(keys)
    algorithm: Algorithm = configuration.build(workers)
    return algorithm
