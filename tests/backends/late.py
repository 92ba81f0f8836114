"""A network that knows how many steps its parameters have taken, and raises when they are many."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

LIMIT = 20


class Late(nn.Module):
    """The eleventh output counts steps, since its gradient is always 1: with a rate of 0.01 it falls by that each."""

    def __init__(self, num_classes: int, when: str) -> None:
        super().__init__()
        self.when, self.inner, self.clock = when, nn.Linear(64, num_classes), nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        is_late = bool(self.clock < -0.01 * LIMIT)
        if is_late and self.when == ("training" if self.training else "evaluation"):
            raise ValueError(f"too late while in {self.when}\nand a second line")
        counted = self.clock.expand(len(images), 1)
        return torch.cat([self.inner(images.flatten(1)), counted], 1)


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs[:, :10], labels) + outputs[:, 10].mean()
