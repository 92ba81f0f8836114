"""The text task: a transformer predicts every next token: a byte, or an id of a tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.streams import generator
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.samples import labels_of
from asgd_lab.tasks.text.corpus import vocabulary
from asgd_lab.tasks.text.transformer import Transformer

_EVALUATED_TOKENS = 2**15  # of each split
_EVALUATED_AT_ONCE = 64  # sequences

Sequences = tuple[Tensor, Tensor]
"""Tokens (B, T) and the token after each, int64."""


class TextConfig(Protocol):
    """The scenario's part for this task, without the keys of the text."""

    @property
    def context(self) -> int:
        """T."""
        ...

    @property
    def batch_size(self) -> int:
        """B."""
        ...

    @property
    def width(self) -> int:
        """C."""
        ...

    @property
    def layers(self) -> int:
        """Blocks of the transformer."""
        ...

    @property
    def heads(self) -> int:
        """H."""
        ...


@final
class NextTokens:
    """Model, minibatches, loss and evaluations, as of a class for task `own`."""

    def __init__(self, config: TextConfig, data: Data) -> None:
        self._config, self._data, self._known = config, data, vocabulary(data)
        self._bits = "bits_per_token" if "vocabulary" in data else "bits_per_byte"
        self._window = torch.arange(config.context + 1)

    def model(self, seed: int) -> nn.Module:
        """The transformer."""
        config = self._config
        return Transformer(self._known, config.context, config.width, config.layers, config.heads)

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Sequences:
        """Sequences from random places of the training text."""
        last = len(self._data["train_text"]) - self._config.context
        starts = generator(seed, "windows", worker, step).integers(0, last, self._config.batch_size)
        return self._sequences("train_text", torch.from_numpy(starts))

    def _sequences(self, part: str, starts: Tensor) -> Sequences:
        places = starts.unsqueeze(1) + self._window
        found = labels_of(self._data[part], places.flatten()).view(places.shape)
        return found[:, :-1], found[:, 1:]

    def loss(self, model: nn.Module, batch: Sequences) -> Any:
        """The cross-entropy in nats a token; the same in bits, and the share of tokens that are not the likeliest."""
        outputs, labels = model(batch[0]).flatten(0, 1), batch[1].flatten()
        total = functional.cross_entropy(outputs, labels, reduction="sum")
        count = labels.numel()
        wrong = outputs.argmax(1).ne(labels).count_nonzero()
        return (total, count), {"error": (wrong, count), self._bits: (total.detach() / math.log(2), count)}

    def evaluations(self) -> Iterator[tuple[str, Iterator[Sequences]]]:
        """The first sequences, one after another, of the held-out text and of the training text."""
        yield "test", self._consecutive("test_text")
        yield "train", self._consecutive("train_text")

    def _consecutive(self, part: str) -> Iterator[Sequences]:
        context = self._config.context
        last = min(len(self._data[part]), _EVALUATED_TOKENS + context + 1) - context
        for starts in torch.split(torch.arange(0, last, context), _EVALUATED_AT_ONCE):
            yield self._sequences(part, starts)
