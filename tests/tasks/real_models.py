"""Small versions of networks that people train, with data and losses, as a user's own package would have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

SAMPLES = 32


def data(kind: str) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    count = 2 * SAMPLES
    if kind == "bytes":
        text = torch.randint(0, 64, (count, 13), generator=drawn)
        inputs, labels = text[:, :-1], text[:, 1:]
    elif kind == "words":
        inputs = torch.randint(1, 50, (count, 10), generator=drawn)
        labels = torch.randint(0, 4, (count,), generator=drawn)
    elif kind == "pixels":
        inputs = torch.randn(count, 3, 16, 16, generator=drawn)
        labels = torch.randint(0, 4, (count, 16, 16), generator=drawn)
    elif kind == "vectors":
        inputs = torch.randn(count, 16, generator=drawn) + 3
        labels = torch.randint(0, 4, (count,), generator=drawn)
    else:
        inputs = torch.randn(count, 3, 16, 16, generator=drawn)
        labels = torch.randint(0, 4, (count,), generator=drawn)
    return {
        "train_images": inputs[:SAMPLES], "train_labels": labels[:SAMPLES],
        "test_images": inputs[SAMPLES:], "test_labels": labels[SAMPLES:],
    }  # fmt: skip


class ByteTransformer(nn.Module):
    """The embedding is the output's matrix too."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(64, width), nn.Embedding(12, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, 64, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Any:
        hidden = self.embedding(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.head(self.block(hidden, src_mask=mask, is_causal=True))


def next_token(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())


class Standardised(nn.Module):
    """Inputs less a running mean of its own."""

    mean: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))
        self.body = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, num_classes))

    def forward(self, vectors: Tensor) -> Any:
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(vectors.mean(0), 0.1)
        return self.body(vectors - self.mean)


class PackedLstm(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(50, 8), nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, num_classes)

    def forward(self, ids: Tensor) -> Any:
        lengths = 1 + ids[:, 0] % ids.shape[1]
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.lstm(packed)[1][0][-1])


class FrozenBackbone(nn.Module):
    """BatchNorm with statistics of an earlier training, kept in eval mode."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        for _ in range(5):
            self.backbone(torch.randn(8, 3, 16, 16) * 2 + 1)
        self.backbone.requires_grad_(False)
        self.head = nn.Linear(32, num_classes)

    def train(self, mode: bool = True) -> FrozenBackbone:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Any:
        return self.head(self.backbone(images).flatten(1))


class TwoHeads(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.head, self.other = nn.Linear(16, 24), nn.Linear(24, num_classes), nn.Linear(24, num_classes)

    def forward(self, vectors: Tensor) -> Any:
        hidden = self.body(vectors).relu()
        return self.head(hidden), self.other(hidden)


def two_heads(outputs: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs[0], labels) + 0.3 * functional.cross_entropy(outputs[1], labels)


class UNet(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 4, 1)

    def forward(self, images: Tensor) -> Any:
        first = self.down(images).relu()
        return self.out(torch.cat([first, self.up(self.deep(first).relu())], 1))


def by_pixel(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels)


class Vae(nn.Module):
    """Draws in forward()."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 8), nn.Linear(4, 16)

    def forward(self, vectors: Tensor) -> Any:
        mean, spread = self.encoder(vectors).chunk(2, 1)
        return self.decoder(mean + torch.randn_like(mean) * (0.5 * spread).exp()), mean, spread, vectors


def elbo(outputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    made, mean, spread, vectors = outputs
    divergence = -0.5 * (1 + spread - mean.square() - spread.exp()).mean()
    return functional.mse_loss(made, vectors) + 0.1 * divergence


class GruBag(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.bag, self.embedding = nn.EmbeddingBag(50, 8), nn.Embedding(50, 8)
        self.gru, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(16, num_classes)

    def forward(self, ids: Tensor) -> Any:
        return self.head(torch.cat([self.bag(ids), self.gru(self.embedding(ids))[1][0]], 1))


def batch_norm_mlp(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, num_classes))


def weight_normed(num_classes: int) -> nn.Module:
    first = parametrizations.weight_norm(nn.Linear(16, 32))
    return nn.Sequential(first, nn.Tanh(), parametrizations.weight_norm(nn.Linear(32, num_classes)))


class Lora(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.base = nn.Linear(16, num_classes).requires_grad_(False)
        self.down, self.up = nn.Linear(16, 2, bias=False), nn.Linear(2, num_classes, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, vectors: Tensor) -> Any:
        return self.base(vectors) + self.up(self.down(vectors))


class Experts(nn.Module):
    """Each sample takes one expert; the last is never taken, and so gets no gradient."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 3)
        self.experts = nn.ModuleList(nn.Linear(16, num_classes) for _ in range(4))

    def forward(self, vectors: Tensor) -> Any:
        shares = self.gate(vectors).softmax(1)
        chosen = shares.argmax(1)
        made = vectors.new_zeros(len(vectors), self.experts[0].out_features)  # type: ignore[arg-type]
        for number in range(3):
            places = (chosen == number).nonzero()[:, 0]
            if len(places):
                part = self.experts[number](vectors[places]) * shares[places, number, None]
                made = made.index_add(0, places, part)
        return made


class ConvNext(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 12, 4, 4), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm, self.wide, self.narrow = nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 12)
        self.scale, self.head = nn.Parameter(torch.full((12,), 0.1)), nn.Linear(12, num_classes)

    def forward(self, images: Tensor) -> Any:
        inside = self.stem(images)
        changed = self.narrow(functional.gelu(self.wide(self.norm(self.depthwise(inside).movedim(1, 3)))))
        return self.head((inside + (self.scale * changed).movedim(3, 1)).mean((2, 3)))


def resnet18(num_classes: int) -> nn.Module:
    from torchvision import models

    made: nn.Module = models.resnet18(num_classes=num_classes)
    return made
