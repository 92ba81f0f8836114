"""The text task: a transformer predicts every next byte, of files or of stories that a program writes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.free_memory import check_free_memory
from asgd_lab.tasks.text.stories import text
from asgd_lab.tasks.text.transformer import Transformer

_STORIES_BYTES = 6_000_000
_TEST_SHARE = 10  # the last tenth is held out
_EVALUATED_BYTES = 2**15  # of each split
_EVALUATED_AT_ONCE = 64  # sequences
_TOKENS = 256

Sequences = tuple[Tensor, Tensor]
"""Bytes (B, T) and the byte after each, int64."""


class TextConfig(Protocol):
    """The scenario's part for this task."""

    @property
    def data_folder(self) -> str | None:
        """A text file, or a folder of them; None: the stories."""
        ...

    @property
    def corpus_bytes(self) -> int | None:
        """The bytes to use, the first ones; None: all."""
        ...

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


def read(config: TextConfig) -> Data:
    """The corpus as bytes: `train_text` and `test_text`, its last tenth."""
    if config.data_folder is None:
        found = text(config.corpus_bytes or _STORIES_BYTES, seed=0)
    else:
        found = b"\n".join(_files(Path(config.data_folder).expanduser()))[: config.corpus_bytes]
    held_out = len(found) // _TEST_SHARE
    if held_out <= config.context:
        key = "task.data_folder" if config.data_folder is not None else "task.corpus_bytes"
        message = f"{len(found):,} bytes are too few: the last tenth must be longer than the context, {config.context}"
        raise ScenarioError.at(key, message)
    whole = torch.from_numpy(np.frombuffer(found, np.uint8).copy())
    return {"train_text": whole[:-held_out], "test_text": whole[-held_out:]}


def _files(place: Path) -> Iterator[bytes]:
    try:
        files = sorted(place.rglob("*.txt")) if place.is_dir() else [place]
        size_bytes = sum(os.path.getsize(file) for file in files)
        check_free_memory("task.data_folder", "is too large: its text takes, twice,", 2 * size_bytes)
        if not files:
            raise ScenarioError.at("task.data_folder", f"{place} has no file *.txt")
        for file in files:
            yield file.read_bytes()
    except OSError as error:
        raise ScenarioError.at("task.data_folder", f"{error.filename or place}: {error.strerror}") from error


@final
class NextBytes:
    """Model, minibatches, loss and evaluations, as of a class for task `own`."""

    def __init__(self, config: TextConfig, data: Data) -> None:
        self._config, self._data = config, data
        self._window = torch.arange(config.context + 1)

    def model(self, seed: int) -> nn.Module:
        """The transformer."""
        config = self._config
        return Transformer(_TOKENS, config.context, config.width, config.layers, config.heads)

    def batch(self, worker: int, workers: int, seed: int, step: int) -> Sequences:
        """Sequences from random places of the training text."""
        last = len(self._data["train_text"]) - self._config.context
        starts = generator(seed, "windows", worker, step).integers(0, last, self._config.batch_size)
        return self._sequences("train_text", torch.from_numpy(starts))

    def _sequences(self, part: str, starts: Tensor) -> Sequences:
        found = self._data[part][starts.unsqueeze(1) + self._window].long()
        return found[:, :-1], found[:, 1:]

    def loss(self, model: nn.Module, batch: Sequences) -> Any:
        """The cross-entropy in nats a byte; the same in bits, and the share of bytes that are not the likeliest."""
        outputs, labels = model(batch[0]).flatten(0, 1), batch[1].flatten()
        total = functional.cross_entropy(outputs, labels, reduction="sum")
        count = labels.numel()
        wrong = outputs.argmax(1).ne(labels).count_nonzero()
        return (total, count), {"error": (wrong, count), "bits_per_byte": (total.detach() / math.log(2), count)}

    def evaluations(self) -> Iterator[tuple[str, Iterator[Sequences]]]:
        """The first sequences, one after another, of the held-out text and of the training text."""
        yield "test", self._consecutive("test_text")
        yield "train", self._consecutive("train_text")

    def _consecutive(self, part: str) -> Iterator[Sequences]:
        context = self._config.context
        last = min(len(self._data[part]), _EVALUATED_BYTES + context + 1) - context
        for starts in torch.split(torch.arange(0, last, context), _EVALUATED_AT_ONCE):
            yield self._sequences(part, starts)
