"""A model whose every minibatch adds 1 to one parameter, which worker and step alone determine.

So the parameters tell how often each minibatch is in them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from asgd_lab.streams import key

SIZE = 1 << 16
TASK = {
    "name": "classification",
    "dataset": "digits",
    "model": "tests.backends.ticking:make",
    "batch_size": 1,
    "optimizer": {"name": "SGD", "lr": 1.0},
}


class _Tick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ticks: Tensor, place: int) -> Tensor:
        ctx.place, ctx.device = place, ticks.device
        return torch.zeros(10, device=ticks.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        one = torch.zeros(SIZE, device=ctx.device)
        one[ctx.place] = -1.0
        return one, None


class Ticks(nn.Module):
    """The host's default generator is seeded for each minibatch, by worker and step."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = nn.Parameter(torch.zeros(SIZE))

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = _Tick.apply(self.ticks, drawn(torch.default_generator)).expand(len(images), 10)  # type: ignore[no-untyped-call]
        return outputs


def make(num_classes: int) -> nn.Module:
    """The factory that the scenario names."""
    return Ticks()


def drawn(generator: torch.Generator) -> int:
    """The parameter of a minibatch."""
    return int(torch.randint(SIZE, (), generator=generator))


def ticked(seed: int, minibatches: Iterable[tuple[int, int]]) -> npt.NDArray[np.float32]:
    """The parameters after these minibatches, each (worker, step), whatever their order."""
    counts = np.zeros(SIZE, np.float32)
    generator = torch.Generator()
    for worker, step in minibatches:
        counts[drawn(generator.manual_seed(key(seed, "model", worker, step)))] += 1
    return counts
