"""Data, networks and losses of the sections' own, named in their scenarios as a user's would be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.streams import key
from asgd_lab.tasks.feeds import walk
from tests.gpu.place import Place

HERE = __name__
SGD = {"name": "SGD", "lr": 0.02, "momentum": 0.9}
VOCABULARY = 256


def images(count: int, side: int, classes: int) -> dict[str, Tensor]:
    """Random pixels (N, 3, side, side) with random labels; an eighth as many to test with."""
    drawn = torch.Generator().manual_seed(1)
    made: dict[str, Tensor] = {}
    for split, size in (("train", count), ("test", max(4, count // 8))):
        shape = (size, 3, side, side)
        made[f"{split}_images"] = torch.randn(shape, generator=drawn)
        made[f"{split}_labels"] = torch.randint(classes, (size,), generator=drawn)
    for labels in (made["train_labels"], made["test_labels"]):
        labels[0] = classes - 1  # all of them are there
    return made


def text(count: int, length: int) -> dict[str, Tensor]:
    """Random bytes (N, length) and, as labels, the next ones."""
    drawn = torch.Generator().manual_seed(1)
    made: dict[str, Tensor] = {}
    for split, size in (("train", count), ("test", max(4, count // 8))):
        whole = torch.randint(VOCABULARY, (size, length + 1), generator=drawn)
        made[f"{split}_images"], made[f"{split}_labels"] = whole[:, :-1].clone(), whole[:, 1:].clone()
    return made


class Conv(nn.Module):
    """Three convolutions and a linear layer: nothing of which CUDA has no deterministic algorithm, as of pooling."""

    def __init__(self, num_classes: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classes = nn.Linear(2 * width, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        outputs: Tensor = self.classes(self.features(pixels).mean((2, 3)))
        return outputs


class Dropping(Conv):
    """With dropout: draws of the device's random numbers."""

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.features(pixels).mean((2, 3))
        outputs: Tensor = self.classes(functional.dropout(features, 0.25, self.training))
        return outputs


class Pooling(Conv):
    """Torch has no deterministic algorithm for its backward pass on CUDA, and says so."""

    def forward(self, pixels: Tensor) -> Tensor:
        features = functional.adaptive_max_pool2d(self.features[:2](pixels), 1).flatten(1)
        outputs: Tensor = self.classes(features.repeat(1, 2))
        return outputs


class Transformer(nn.Module):
    """A decoder of a few layers, with learned places."""

    def __init__(self, num_classes: int, width: int = 256, layers: int = 4, length: int = 64) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=ids.device)
        hidden = self.tokens(ids) + self.places(torch.arange(length, device=ids.device))
        outputs: Tensor = self.head(self.blocks(hidden, mask=mask, is_causal=True))
        return outputs


def next_token(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over all places."""
    return functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())


class Hungry(nn.Module):
    """Asks for more memory than any GPU has."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.is_cuda:
            torch.empty(2**44, dtype=torch.uint8, device=pixels.device)
        outputs: Tensor = self.linear(pixels.flatten(1))
        return outputs


class OnCuda(nn.Module):
    """Says nothing of a device but `.cuda()`, as older code does: on which GPU that is, is up to its process."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        ones = torch.ones(64)
        outputs: Tensor = self.linear(pixels.flatten(1) * (ones.cuda() if pixels.is_cuda else ones))
        return outputs


def of_images(model: str, count: int, side: int, batch: int, classes: int = 10, **options: Any) -> dict[str, Any]:
    """A task of images; a `model` with a capital letter is one of this file."""
    return {
        "name": "classification", "dataset": f"{HERE}:images",
        "dataset_options": {"count": count, "side": side, "classes": classes},
        "model": f"{HERE}:{model}" if model[0].isupper() else model, "model_options": options,
        "batch_size": batch, "optimizer": SGD,
    }  # fmt: skip


def of_text(count: int, length: int, batch: int, **options: Any) -> dict[str, Any]:
    """A task of text, for the transformer."""
    return {
        "name": "classification", "dataset": f"{HERE}:text", "dataset_options": {"count": count, "length": length},
        "model": f"{HERE}:Transformer", "model_options": {"length": length, **options}, "loss": f"{HERE}:next_token",
        "batch_size": batch, "optimizer": SGD,
    }  # fmt: skip


def resnet(place: Place) -> dict[str, Any]:
    """ResNet-18, of 32 by 32 pixels; on the CPU three convolutions."""
    return of_images("resnet18", 2048, 32, 128) if place.gpu else of_images("Conv", 16, 8, 2)


def transformer(place: Place) -> dict[str, Any]:
    """3.3 million parameters."""
    if place.gpu:
        return of_text(2048, 64, 32)
    return of_text(16, 8, 2, width=16, layers=1)


class Loop:
    """A plain training loop over a task of this file: it knows the lab's order of samples and seeds, and nothing else.

    Its data lie on the device, as the lab's do.
    """

    def __init__(self, task: dict[str, Any], device: torch.device, seed: int = 0) -> None:
        from asgd_lab.tasks import models

        made = globals()[task["dataset"].partition(":")[2]](**task["dataset_options"])
        self.data = {name: each.to(device) for name, each in made.items()}
        self.device, self.seed = device, seed
        torch.manual_seed(key(seed, "initial"))
        shape = tuple(made["train_images"].shape[1:])
        self.model = models.build(task["model"], task["model_options"], shape, int(made["train_labels"].max()) + 1)
        self.before = [each.detach().clone() for each in self.model.parameters()]
        self.model.to(device).train()
        options = {name: value for name, value in task["optimizer"].items() if name != "name"}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **options)
        self.loss = next_token if task.get("loss") else functional.cross_entropy
        self._order = walk(seed, 0, len(made["train_labels"]), task["batch_size"], device, None)

    def step(self, step: int) -> Tensor:
        """One minibatch; its loss, on the device."""
        chosen = self._order(step)
        torch.manual_seed(key(self.seed, "model", 0, step))
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.model(self.data["train_images"][chosen]), self.data["train_labels"][chosen])
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def after(self) -> list[Tensor]:
        """The parameters, on the CPU."""
        return [each.detach().cpu() for each in self.model.parameters()]
