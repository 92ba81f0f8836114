"""A task of one's own: a network that removes noise from sine waves, with its own loss, metric and held-out data."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

PLACES = 32  # at which a wave is sampled


class Denoise:
    def __init__(self, hidden: int = 16, noise: float = 0.3) -> None:
        self.hidden, self.noise = hidden, noise

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(PLACES, self.hidden), nn.Tanh(), nn.Linear(self.hidden, PLACES))

    def batch(self, worker: int, workers: int, seed: int, step: int) -> dict[str, Tensor]:
        """A function of its arguments alone, so that a replayed or resumed run sees the same minibatches."""
        drawn = torch.Generator().manual_seed((seed * 4096 + worker) * 10_000_000 + step)
        frequency, phase = torch.rand(2, 64, 1, generator=drawn)
        clean = torch.sin((1 + 2 * frequency) * torch.linspace(0, 6.28, PLACES) + 6.28 * phase)
        return {"clean": clean, "noisy": clean + self.noise * torch.randn(clean.shape, generator=drawn)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, tuple[Tensor, int]]]:
        squares = (model(batch["noisy"]) - batch["clean"]).square()
        improved = squares.mean(1) < (batch["noisy"] - batch["clean"]).square().mean(1)
        return squares.mean(), {"improved": (improved.sum(), len(improved))}  # a metric is a sum and its weight

    def evaluations(self) -> Iterator[tuple[str, list[dict[str, Tensor]]]]:
        yield "test", [self.batch(4095, 1, 0, step) for step in range(4)]
