"""The text task: a transformer predicts every next token: a byte, or an id of a tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.streams import generator
from asgd_lab.task_keys.text import TextKeys
from asgd_lab.tasks.base import Data, check_free_memory
from asgd_lab.tasks.samples import labels_of
from asgd_lab.tasks.text.corpus import vocabulary
from asgd_lab.tasks.text.transformer import Transformer
from asgd_lab.tasks.text.windows import consecutive, divided, spans_of

_EVALUATED_TOKENS = 2**15  # of each split
_EVALUATED_AT_ONCE = 64  # sequences

Sequences = tuple[Tensor, Tensor]
"""Tokens (B, T) and the token after each, int64."""


@final
class NextTokens:
    """Model, minibatches, loss and evaluations, as of a class for task `own`."""

    def __init__(self, config: TextKeys, data: Data, seed: int, workers: int) -> None:
        """`workers` divide the text as the scenario says; a single one, such as that of a warm start, has all of it."""
        self._config, self._data, self._known = config, data, vocabulary(data)
        _check_size(config, self._known)
        self._windows = {each: divided(config, data, each, seed) for each in {1, workers}}
        self._bits = "bits_per_token" if "vocabulary" in data else "bits_per_byte"
        self._window = torch.arange(config.context + 1)

    def model(self, seed: int) -> nn.Module:
        config = self._config
        return Transformer(self._known, config.context, config.width, config.layers, config.heads)

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Sequences:
        """Sequences from random places of the worker's part of the training text."""
        parts = self._windows[workers]
        random = generator(seed, "windows", worker, step)
        return self._sequences("train_text", parts[worker % len(parts)].drawn(random, self._config.batch_size))

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
        """Consecutive sequences of the held-out text and of the training text.

        They are the first ones, or if workers own files evenly spread ones, of all files; none spans two files.
        """
        yield "test", self._consecutive("test")
        yield "train", self._consecutive("train")

    def _consecutive(self, split: str) -> Iterator[Sequences]:
        starts = consecutive(spans_of(self._data, split), self._config.context)
        most = _EVALUATED_TOKENS // self._config.context + 1
        step = -(-len(starts) // most) if f"{split}_spans" in self._data else 1
        for each in torch.split(starts[::step][:most], _EVALUATED_AT_ONCE):
            yield self._sequences(f"{split}_text", each)


def _check_size(config: TextKeys, known: int) -> None:
    """A `ScenarioError` if the transformer's parameters exceed the free memory."""
    width = config.width
    tables, blocks = (known + config.context) * width, config.layers * (12 * width + 13) * width
    key = "task.vocabulary" if "tokens" in config.model_fields_set and tables > blocks else "task.width"
    check_free_memory(key, "makes the transformer too large: its parameters take", 4 * (tables + blocks))
