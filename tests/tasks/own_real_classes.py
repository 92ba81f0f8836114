"""Further classes for task `own`: tokens in a file, LoRA on a frozen body, segmentation, a ranking, compiled models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .own_classes import WIDTH, B, Plain, Streamed, drawn

TOKENS = Path(__file__).parents[2] / "LICENSE"  # its bytes are the ids


class Mapped:
    """Next-token prediction over ids in a memory-mapped file, of which a minibatch copies what it needs."""

    def __init__(self, context: int = 8) -> None:
        self.ids = np.memmap(TOKENS, np.uint8, "r")
        self.context = context

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 256))

    def batch(self, worker: int, workers: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(self.ids) - self.context, (B,), generator=drawn(worker, seed, step))
        rows = np.stack([self.ids[place : place + self.context + 1] for place in at.tolist()])
        ids = torch.from_numpy(rows.astype(np.int64))
        return ids[:, :-1], ids[:, 1:]

    def loss(self, model: nn.Module, batch: Any) -> Any:
        outputs, ids = model(batch[0]).flatten(0, 1), batch[1].flatten()
        total = functional.cross_entropy(outputs, ids, reduction="sum")
        return (total, len(ids)), {"token_accuracy": (outputs.argmax(1).eq(ids).sum(), len(ids))}

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, 0, step) for step in range(2)]


class Adapted(nn.Module):
    """LoRA (Hu et al. 2021): a frozen layer and the product of two small matrices."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.base(inputs) + self.up(self.down(inputs))
        return found


class Lora(Plain):
    """LoRA on a frozen body with BatchNorm in evaluation mode; the adapters alone are trained."""

    def model(self, seed: int) -> nn.Module:
        body = nn.Sequential(nn.Linear(WIDTH, 12), nn.BatchNorm1d(12), nn.ReLU()).requires_grad_(False)
        body[1].running_mean.fill_(0.5)
        whole = nn.Sequential(body, Adapted(nn.Linear(12, 12)), nn.ReLU(), Adapted(nn.Linear(12, 3)))
        body.eval()
        return whole


class Segmentation:
    """Classes of every pixel, a small U-Net (Ronneberger et al. 2015), pixel accuracy and intersection over union."""

    def model(self, seed: int) -> nn.Module:
        class UNet(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.down, self.deep = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
                self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 2, 1)

            def forward(self, images: Tensor) -> Tensor:
                wide = self.down(images).relu()
                deep = self.deep(functional.max_pool2d(wide, 2)).relu()
                found: Tensor = self.out(torch.cat([wide, self.up(deep)], 1))
                return found

        return UNet()

    def batch(self, worker: int, workers: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        images = torch.randn(B, 1, 8, 8, generator=drawn(worker, seed, step))
        return images, (functional.avg_pool2d(images, 3, 1, 1).squeeze(1) > 0).long()

    def loss(self, model: nn.Module, batch: Any) -> Any:
        images, masks = batch
        outputs = model(images)
        found = outputs.argmax(1)
        both, either = (found & masks).sum(), (found | masks).sum()
        metrics = {"pixel_accuracy": (found.eq(masks).sum(), masks.numel()), "iou": (both, either)}
        return functional.cross_entropy(outputs, masks), metrics

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, 0, 0)]


class Ranked:
    """Two inputs, a user and an item, into two towers; the area under the curve over pairs of a minibatch."""

    def model(self, seed: int) -> nn.Module:
        return nn.ModuleDict({"user": nn.Embedding(20, 4), "item": nn.Linear(WIDTH, 4)})

    def batch(self, worker: int, workers: int, seed: int, step: int) -> dict[str, Tensor]:
        draw = drawn(worker, seed, step)
        users, items = torch.randint(20, (4 * B,), generator=draw), torch.randn(4 * B, WIDTH, generator=draw)
        return {"users": users, "items": items, "liked": (items[:, 0] * (users % 2 * 2 - 1) > 0).float()}

    def loss(self, model: Any, batch: Any) -> Any:
        scores = (model["user"](batch["users"]) * model["item"](batch["items"])).sum(1)
        liked = batch["liked"] > 0
        over = scores[liked].unsqueeze(1) > scores[~liked]
        return functional.binary_cross_entropy_with_logits(scores, batch["liked"]), {"auc": (over.sum(), over.numel())}

    def evaluations(self) -> Iterator[tuple[str, Any]]:
        yield "test", [self.batch(9, 1, 0, 0)]


class CompiledAhead(Plain):
    """torch.compile as far as the graphs of forward and backward passes, without generated code."""

    def model(self, seed: int) -> nn.Module:
        return torch.compile(super().model(seed), backend="aot_eager")  # type: ignore[return-value]


class CompiledWhole(Plain):
    """torch.compile with its default backend, which writes C++ on a CPU."""

    def model(self, seed: int) -> nn.Module:
        return torch.compile(nn.Sequential(nn.Linear(WIDTH, 12), nn.GELU(), nn.Linear(12, 3)))  # type: ignore[return-value]


class OneBuffer(Streamed):
    """A stream that fills the same tensors again and again."""

    def stream(self, worker: int, workers: int, seed: int) -> Any:
        plain = self.plain

        class Filled:
            step = 0
            place: dict[str, Tensor] | None = None

            def __iter__(self) -> Any:
                return self

            def __next__(self) -> Any:
                found = plain.batch(worker, workers, seed, self.step)
                self.step += 1
                self.place = self.place or {name: torch.empty_like(each) for name, each in found.items()}
                for name, each in found.items():
                    self.place[name].copy_(each)
                return self.place

            def state_dict(self) -> dict[str, Any]:
                return {"step": self.step}

            def load_state_dict(self, state: dict[str, Any]) -> None:
                self.step = state["step"]

        return Filled()


REAL = [Mapped, Lora, Segmentation, Ranked, CompiledAhead, OneBuffer]
