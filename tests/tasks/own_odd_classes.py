"""Classes for task `own` with what is odd about real networks, losses and optimizers, and was once computed wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .keepers import CountInGroup
from .own_classes import WIDTH, B, Plain, drawn


class OneLogit(Plain):
    """Binary cross-entropy of one output, and its error."""

    def model(self, seed: int) -> nn.Module:
        return nn.Linear(WIDTH, 1)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        logits, labels = model(batch["inputs"]), (batch["classes"] > 0).float().unsqueeze(1)
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        return loss, {"error": ((logits > 0).ne(labels > 0).sum(), B)}


class DictOfOutputs(Plain):
    """A model that returns a dict, and has more outputs than there are labels."""

    def model(self, seed: int) -> nn.Module:
        class Named(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inside = nn.Linear(WIDTH, 5)

            def forward(self, inputs: Tensor) -> dict[str, Tensor]:
                return {"logits": self.inside(inputs)}

        return Named()

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return functional.cross_entropy(model(batch["inputs"])["logits"], batch["classes"])


FIRST = 2**24 + 1


class LargeIds(Plain):
    """Ids beyond 2**24, of which float32 holds every second one."""

    def model(self, seed: int) -> nn.Module:
        return nn.Embedding(2 * WIDTH, 3)

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        ids = FIRST + 2 * torch.randint(WIDTH, (B,), generator=drawn(worker, seed, step))
        return {"inputs": ids, "classes": ids % 3}

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return functional.cross_entropy(model(batch["inputs"] - FIRST), batch["classes"])


class ClosesOver(Plain):
    """A forward pass that calls a function which closes over the module."""

    def model(self, seed: int) -> nn.Module:
        class Closed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inside = nn.Linear(WIDTH, 3)
                self.called: Callable[[Tensor], Tensor] = lambda inputs: self.inside(inputs)

            def forward(self, inputs: Tensor) -> Tensor:
                return self.called(inputs)

        return Closed()


class Scripted(Plain):
    """torch.jit.script."""

    def model(self, seed: int) -> nn.Module:
        made: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, 12), nn.ReLU(), nn.Linear(12, 3)))  # type: ignore[no-untyped-call]
        return made


class Deep(Plain):
    """Three hundred layers."""

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(299)), nn.Linear(WIDTH, 3))


class CountsSteps(Plain):
    """An optimizer that counts its steps in `param_groups`, as schedule-free ones do."""

    def optimizer(self, model: nn.Module) -> Any:
        return [CountInGroup(model.parameters())]


class Weighted(Plain):
    """Classes of different weight, and labels that do not count."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        weights, labels = torch.tensor([1.0, 2.0, 5.0]), batch["classes"].where(batch["inputs"][:, 4] < 1, 7)
        total = functional.cross_entropy(model(batch["inputs"]), labels, weights, ignore_index=7, reduction="sum")
        return total, weights[labels[labels != 7]].sum()


class OfItsSize(Plain):
    """A model for minibatches of one size, which a buffer has."""

    def model(self, seed: int) -> nn.Module:
        class Sized(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inside = nn.Linear(WIDTH, 3)
                self.register_buffer("noise", torch.linspace(-1, 1, B).unsqueeze(1))

            def forward(self, inputs: Tensor) -> Tensor:
                found: Tensor = self.inside(inputs + self.get_buffer("noise"))
                return found

        return Sized()


class DrawsFromNumpy(Plain):
    def loss(self, model: nn.Module, batch: Any) -> Any:
        return super().loss(model, batch | {"inputs": batch["inputs"] * (1 + 0.1 * np.random.rand())})


class CountsInPython(Plain):
    """A module with a count in a Python attribute, which scales its outputs."""

    def model(self, seed: int) -> nn.Module:
        class Counting(nn.Module):
            count = 0

            def __init__(self) -> None:
                super().__init__()
                self.inside = nn.Linear(WIDTH, 3)

            def forward(self, inputs: Tensor) -> Tensor:
                self.count += self.training
                found: Tensor = self.inside(inputs) / (1 + 0.1 * self.count)
                return found

        return Counting()


# ---------------------------------------------------------------- refused


class OnlyTrains(Plain):
    """It raises in evaluation mode."""

    def model(self, seed: int) -> nn.Module:
        class Training(nn.Linear):
            def forward(self, inputs: Tensor) -> Tensor:
                if not self.training:
                    raise RuntimeError("no path for evaluation")
                return super().forward(inputs)

        return Training(WIDTH, 3)


class NegativeLabel(Plain):
    def batch(self, worker: int, workers: int, seed: int, step: int) -> Any:
        found = super().batch(worker, workers, seed, step)
        return found | {"classes": found["classes"] - 1}


class SparseDecay(Plain):
    """Sparse gradients and weight decay."""

    def model(self, seed: int) -> nn.Module:
        return nn.Embedding(WIDTH, 3, sparse=True)

    def optimizer(self, model: nn.Module) -> Any:
        return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return functional.cross_entropy(model(batch["classes"]), batch["classes"])
