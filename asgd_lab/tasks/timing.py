"""The timing task, which learns nothing: a stated size to move and a stated time; its learners return at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from asgd_lab.task_keys.toys import TimingKeys
from asgd_lab.tasks.base import CPU, Bufferless, OneByOne


@final
class TimingLearner:
    """A learner without computation: the backend knows the time of a step."""

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version = 0

    def minibatch(self, step: int) -> tuple[float, float]:
        return (math.nan, math.nan)

    def reset_momentum(self) -> None:
        """Do nothing."""

    def buffers(self) -> dict[str, Tensor]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def warm_up(self) -> None:
        """Do nothing."""


@final
class TimingTask(Bufferless):
    """An empty vector that counts as `size_bytes`."""

    def __init__(self, config: TimingKeys) -> None:
        self.size = 0
        self.size_bytes = config.size_bytes

    def initial(self) -> Tensor:
        return torch.empty(0)

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> TimingLearner:
        return TimingLearner()

    def batch(self, device: torch.device = CPU) -> OneByOne:
        return OneByOne()

    def evaluate(
        self, params: Tensor, buffers: Mapping[str, Tensor] | None = None, *, of_replica: bool = False
    ) -> list[tuple[str, str, float]]:
        return []
