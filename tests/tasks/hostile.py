"""Models, losses and optimizers of hostile users: each is trained as in a plain loop, or refused in one line.

A plain loop seeds torch, numpy and Python before each minibatch, as the lab does.
"""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

WIDTH = 10


class Net(nn.Module):
    """Vectors of six through a hidden layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, WIDTH), nn.Linear(WIDTH, num_classes)
        self.set_up()

    def set_up(self) -> None:
        pass

    def middle(self, hidden: Tensor) -> Tensor:
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.middle(torch.tanh(self.first(x))))
        return found


# ---------------------------------------------------------------- random numbers


class DrawsFromNumpy(Net):
    def middle(self, hidden: Tensor) -> Tensor:
        return hidden * (1 + np.random.rand()) if self.training else hidden


class DrawsFromPython(Net):
    """Stochastic depth."""

    def set_up(self) -> None:
        self.layer = nn.Linear(WIDTH, WIDTH)

    def middle(self, hidden: Tensor) -> Tensor:
        return self.layer(hidden) if not self.training or random.random() < 0.5 else hidden  # type: ignore[no-any-return]


class BuiltWithNumpy(Net):
    def set_up(self) -> None:
        self.order = np.random.permutation(WIDTH)
        with torch.no_grad():
            self.first.weight.copy_(torch.from_numpy(0.3 * np.random.randn(WIDTH, 6)))

    def middle(self, hidden: Tensor) -> Tensor:
        return hidden[:, self.order.copy()]


class BuiltWithPython(Net):
    def set_up(self) -> None:
        nn.init.constant_(self.first.bias, random.gauss(0, 0.3))


def noisy_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels) * (1 + np.random.rand() + random.random())


# ---------------------------------------------------------------- data that are put in the places of parameters


class BoundsItsNorm(Net):
    """Max-norm by assignment, as EEGNet has it."""

    def forward(self, x: Tensor) -> Tensor:
        self.first.weight.data = torch.renorm(self.first.weight.data, 2, 0, 0.5)
        return super().forward(x)


class BoundsItLate(BoundsItsNorm):
    """From the seventh minibatch on, which no try-out sees."""

    def set_up(self) -> None:
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        return super().forward(x) if self.seen > 6 else Net.forward(self, x)


class HasATeacher(Net):
    """A frozen average of its first layer, written in the forward pass."""

    def set_up(self) -> None:
        self.teacher = copy.deepcopy(self.first).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                for one, other in zip(self.teacher.parameters(), self.first.parameters(), strict=True):
                    one.lerp_(other, 0.001)
        return self.last(torch.tanh(self.first(x)) + torch.tanh(self.teacher(x)))  # type: ignore[no-any-return]


class SteppedBackward(Net):
    """Each weight is stepped as soon as it has its gradient."""

    def set_up(self) -> None:
        for weight in self.parameters():
            own = torch.optim.SGD([weight], lr=0.05)
            weight.register_post_accumulate_grad_hook(lambda _, own=own: own.step())


class StartsFromItsData(Net):
    """ActNorm: scaled by its first minibatch."""

    def set_up(self) -> None:
        self.register_buffer("ready", torch.tensor(False))
        self.scale = nn.Parameter(torch.ones(WIDTH))

    def middle(self, hidden: Tensor) -> Tensor:
        if self.training and not self.ready:
            self.scale.data = 1 / (hidden.detach().std(0) + 1e-3)
            self.ready.fill_(True)
        return hidden * self.scale


class AssignsData(torch.optim.Optimizer):
    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.data = weight.data - group["lr"] * weight.grad


class Bounded(AssignsData):
    """Keeps weights within bounds that training starts within."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for weight in self.param_groups[0]["params"]:
            weight.data = weight.data.clamp(-2.0, 2.0)


# ---------------------------------------------------------------- buffers


class OneBufferTwice(Net):
    def set_up(self) -> None:
        self.one, self.other = nn.BatchNorm1d(WIDTH), nn.BatchNorm1d(WIDTH)
        self.other.running_mean, self.other.running_var = self.one.running_mean, self.one.running_var

    def middle(self, hidden: Tensor) -> Tensor:
        return self.other(self.one(hidden))  # type: ignore[no-any-return]


class AverageOfItself(Net):
    """Evaluated with an exponential average of its weights."""

    def set_up(self) -> None:
        for name, each in list(self.named_parameters()):
            self.register_buffer(name.replace(".", "_"), each.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            parts = {name: self.get_buffer(name.replace(".", "_")) for name, _ in self.named_parameters()}
            hidden = torch.tanh(x @ parts["first.weight"].T + parts["first.bias"])
            return hidden @ parts["last.weight"].T + parts["last.bias"]
        with torch.no_grad():
            for name, each in self.named_parameters():
                self.get_buffer(name.replace(".", "_")).lerp_(each, 0.1)
        return super().forward(x)


class Quantised(Net):
    """A codebook that is an average of what is assigned to it."""

    codes: Tensor
    counts: Tensor

    def set_up(self) -> None:
        self.register_buffer("codes", torch.randn(8, WIDTH))
        self.register_buffer("counts", torch.ones(8), persistent=False)

    def middle(self, hidden: Tensor) -> Tensor:
        nearest = torch.cdist(hidden.detach(), self.codes).argmin(1)
        if self.training:
            chosen = one_hot(nearest, 8).float()
            self.counts.mul_(0.9).add_(chosen.sum(0), alpha=0.1)
            self.codes = self.codes.lerp(chosen.T @ hidden.detach() / self.counts.unsqueeze(1), 0.1)
        return hidden + (self.codes[nearest] - hidden).detach()


def frozen_script(num_classes: int) -> nn.Module:
    """A part that torch.jit.freeze made has no mode."""
    inner = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).eval())  # type: ignore[no-untyped-call]
    return nn.Sequential(nn.Linear(6, WIDTH), torch.jit.freeze(inner), nn.Linear(WIDTH, num_classes))  # type: ignore[no-untyped-call]


def of_one_element(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels).view(1)


TRAINED: dict[str, tuple[str, str | None, str]] = {
    name: (name, None, "SGD")
    for name in (
        "DrawsFromNumpy", "DrawsFromPython", "BuiltWithNumpy", "BuiltWithPython", "BoundsItsNorm", "BoundsItLate",
        "StartsFromItsData", "HasATeacher", "SteppedBackward", "OneBufferTwice", "AverageOfItself", "Quantised",
        "frozen_script",
    )
} | {
    "noisy_loss": ("Net", "noisy_loss", "SGD"), "of_one_element": ("Net", "of_one_element", "SGD"),
    "assigned_by_the_optimizer": ("Net", None, "AssignsData"),
}  # fmt: skip
"""Model, loss and optimizer of what trains as a plain loop."""


# ---------------------------------------------------------------- what is refused before it is trained


class LateBuffer(Net):
    def middle(self, hidden: Tensor) -> Tensor:
        if "mean" not in self._buffers:
            self.register_buffer("mean", torch.zeros(WIDTH))
        return hidden - self.get_buffer("mean").lerp_(hidden.detach().mean(0), 0.1)


class LateParameter(Net):
    def middle(self, hidden: Tensor) -> Tensor:
        if "late" not in self._parameters:
            self.late = nn.Parameter(torch.ones(WIDTH))
        return hidden * self.late


class FollowsTheClock(Net):
    def middle(self, hidden: Tensor) -> Tensor:
        return hidden * (1 + 1e4 * time.perf_counter() % 1)


class DrawsFromTheSystem(Net):
    def middle(self, hidden: Tensor) -> Tensor:
        return hidden * (1 + random.SystemRandom().random() + os.urandom(1)[0])


class SecondStepFails(AssignsData):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for weight in self.param_groups[0]["params"]:
            state = self.state[weight]
            state["count"] = state.get("count", 0) + 1
            if state["count"] > 1 and weight.dim() == 1:
                raise RuntimeError("no second step of a bias")


class Sparse(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(20, 8, sparse=True), nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.table(x).mean(1))
        return found


class EvaluatesOnlyWhatIsNew(Net):
    """Raises in evaluation mode, once it has been trained."""

    def set_up(self) -> None:
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        if not self.training and self.seen > 0:
            raise ValueError("used up")
        return super().forward(x)


class Freezes(Net):
    """From a minibatch on its first layer is no longer trained, or, the other way round, only from then on."""

    last_step, freezes = 1, True

    def set_up(self) -> None:
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.first.requires_grad_(self.freezes)

    def middle(self, hidden: Tensor) -> Tensor:
        self.seen += self.training
        if self.seen > self.last_step:
            self.first.requires_grad_(not self.freezes)
        return hidden


class Unfreezes(Freezes):
    freezes = False


class FreezesLate(Freezes):
    last_step = 7


class UnfreezesLate(Unfreezes):
    last_step = 7


class FreezesAllLate(FreezesLate):
    def middle(self, hidden: Tensor) -> Tensor:
        self.last.requires_grad_(bool(self.seen < self.last_step))
        return super().middle(hidden).detach() if self.seen >= self.last_step else super().middle(hidden)


CHANGES = "computes something else each time|does not follow its parameters"  # whichever is noticed first


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "late_buffer": ({"model": "LateBuffer"}, "task.model", "registers mean when it trains"),
    "late_parameter": ({"model": "LateParameter"}, "task.model", "registers late when it trains"),
    "clock": ({"model": "FollowsTheClock"}, "task.model", CHANGES),
    "system": ({"model": "DrawsFromTheSystem"}, "task.model", CHANGES),
    "second_step": ({"optimizer": "SecondStepFails"}, "task.optimizer", "no second step of a bias"),
    "sparse_adam": ({"model": "Sparse", "data": "ids", "optimizer": "Adam"}, "task.optimizer", "sparse gradients"),
    "sparse_decay": (
        {"model": "Sparse", "data": "ids", "options": {"weight_decay": 0.1}}, "task.optimizer", "sparse",
    ),
    "sparse_clip": ({"model": "Sparse", "data": "ids", "clip": {"norm": 1.0}}, "task.clip", "cannot be clipped"),
    "evaluation": ({"model": "EvaluatesOnlyWhatIsNew"}, "task.model", "cannot be evaluated: ValueError: used up"),
    "freezes": ({"model": "Freezes"}, "task.model", "sets requires_grad of its parameter first.weight to False"),
    "unfreezes": ({"model": "Unfreezes"}, "task.model", "sets requires_grad of its parameter first.weight to True"),
    "test_ids": ({"model": "Sparse", "data": "ids_beyond"}, "task.model", "cannot be evaluated where inputs or labels"),
    "test_labels": ({"data": "labels_beyond", "loss": "plain_loss"}, "task.model", "least or greatest"),
}  # fmt: skip


def plain_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels)


# ---------------------------------------------------------------- what is doubted


class Counts(Net):
    count = 0

    def middle(self, hidden: Tensor) -> Tensor:
        self.count += self.training
        return hidden / (1 + self.count)


class CountsForLater(Counts):
    """Its count changes something after a hundred minibatches, which no try-out sees."""

    def middle(self, hidden: Tensor) -> Tensor:
        self.count += self.training
        return hidden if self.count < 100 else hidden / 2


SEEN = [0]


class CountsInAGlobal(Net):
    """It changes something after a hundred minibatches, which no try-out sees."""

    def middle(self, hidden: Tensor) -> Tensor:
        SEEN[0] += self.training
        return hidden if SEEN[0] < 100 else hidden / 2


class CountsInItsClass(Net):
    count = 0

    def middle(self, hidden: Tensor) -> Tensor:
        type(self).count += self.training
        return hidden if self.count < 100 else hidden / 2


class KeepsADict(Net):
    def set_up(self) -> None:
        self.kept = {"mean": torch.zeros(WIDTH)}

    def middle(self, hidden: Tensor) -> Tensor:
        if self.training:
            self.kept["mean"] = 0.5 * (self.kept["mean"] + hidden.detach().mean(0))
        return hidden - self.kept["mean"]


def weighted_mean(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels, torch.arange(1.0, 5.0))


def contrast(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


def summed(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels, reduction="sum")


def weighted_pair(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.arange(1.0, 5.0)
    return cross_entropy(outputs, labels, weights, reduction="sum"), weights[labels].sum()


DOUBTED: dict[str, tuple[str, str | None, str | None]] = {
    "counts": ("Counts", None, "task.model"), "dict": ("KeepsADict", None, "task.model"),
    "global": ("CountsInAGlobal", None, "task.model"), "class": ("CountsInItsClass", None, "task.model"),
    "weighted": ("Net", "weighted_mean", "task.loss"), "contrast": ("Net", "contrast", "task.loss"),
    "summed": ("Net", "summed", "task.loss"),
    "plain": ("Net", "plain_loss", None), "pair": ("Net", "weighted_pair", None), "codes": ("Quantised", None, None),
}  # fmt: skip
"""Model, loss, and the key that a line is about."""


def data(kind: str = "vectors") -> dict[str, Tensor]:
    """Vectors or ids of four classes; numpy's and Python's generators decide a part of them."""
    draw = torch.Generator().manual_seed(1)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 4
        if kind.startswith("ids"):
            return torch.randint(20, (count, 7), generator=draw), labels
        return torch.randn(count, 6, generator=draw) + 0.3 * labels.unsqueeze(1), labels

    train, test = split(48), split(11)
    if kind == "ids_beyond":
        test[0][5, 3] = 25
    if kind == "labels_beyond":
        test[1][5] = -1
    if kind == "drawn":
        train[0].add_(float(np.random.randn()) + random.random() + float(torch.rand(())))
    return {"train_images": train[0], "train_labels": train[1], "test_images": test[0], "test_labels": test[1]}
