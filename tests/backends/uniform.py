"""A model most of whose parameters move alike, and which raises when it sees that they did not: a torn vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Uniform(nn.Module):
    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)
        self.level = nn.Parameter(torch.zeros(size))

    def forward(self, images: Tensor) -> Tensor:
        low, high = torch.aminmax(self.level.detach())
        if low != high:
            raise RuntimeError(f"torn: parameters between {low} and {high}")
        outputs: Tensor = self.linear(images.flatten(1))
        # Each parameter has the same gradient, which is not zero: one class's output depends on their sum.
        return torch.cat([outputs[:, :1] + self.level.sum() / len(self.level), outputs[:, 1:]], dim=1)


def make(num_classes: int, size: int) -> nn.Module:
    return Uniform(num_classes, size)
