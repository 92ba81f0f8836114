"""Places in a text where a sequence may begin: in all of it, in the part that a worker owns, or one behind another."""

from __future__ import annotations

import itertools
from typing import final

import numpy as np
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.task_keys.text import BySource, Spans, TextKeys
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.data_division import Indices, dealt


@final
class Windows:
    """The places in some spans of the text at which a whole sequence begins; no sequence spans two of them."""

    def __init__(self, spans: Indices, context: int) -> None:
        """`spans` (S, 2) have a beginning and an end each; one that is not longer than the context has no place."""
        begins, ends = spans.T
        counts = np.maximum(ends - begins - context, 0)
        self._ends = np.cumsum(counts)
        self._shifts = begins - (self._ends - counts)
        self.count = int(counts.sum())

    def drawn(self, random: np.random.Generator, size: int) -> Tensor:
        """`size` places, each as likely as any other."""
        drawn: Indices = random.integers(0, self.count, size)
        return torch.from_numpy(drawn + self._shifts[np.searchsorted(self._ends, drawn, side="right")])


def consecutive(spans: Indices, context: int) -> Tensor:
    """(N,) the places of sequences one behind another in each of the spans (S, 2); none where one is too short."""
    begins, ends = spans.T
    counts = np.maximum(ends - begins - 1, 0) // context
    firsts = np.cumsum(counts) - counts
    places: Indices = np.repeat(begins - firsts * context, counts) + context * np.arange(counts.sum())
    return torch.from_numpy(places)


def spans_of(data: Data, split: str) -> Indices:
    """(S, 2) the files of a split's text, beginning and end; without their spans, all of it is one."""
    found = data.get(f"{split}_spans")
    if found is None:
        return np.array([[0, len(data[f"{split}_text"])]], np.int64)
    spans: Indices = found[:, :2].numpy()
    return spans


def divided(config: TextKeys, data: Data, workers: int, seed: int) -> list[Windows]:
    """Each worker's windows, or a single element if all workers share the text.

    A `ScenarioError` if there are fewer files or folders than workers, or if a worker's part has no whole sequence.
    """
    division = config.data
    spans = spans_of(data, "train")
    parts = [spans]
    if isinstance(division, BySource):
        parts = _owned(spans, data["train_spans"][:, 2].numpy(), workers, seed, f"{division.key}s")
    elif isinstance(division, Spans):
        length = len(data["train_text"])
        ends = [length * each // workers for each in range(workers + 1)]
        parts = [np.array([span], np.int64) for span in itertools.pairwise(ends)]
    found = [Windows(part, config.context) for part in parts]
    for worker, (part, windows) in enumerate(zip(parts, found, strict=True)):
        if not windows.count:
            what = f"worker {worker} gets {int((part[:, 1] - part[:, 0]).sum()):,} tokens"
            raise ScenarioError.at(
                "task.data", f"{what}, no piece of which is longer than the context, {config.context}"
            )
    return found


def _owned(spans: Indices, sources: Indices, workers: int, seed: int, what: str) -> list[Indices]:
    """The spans (S, 2) of each worker, which owns whole sources; `sources` (S,) has the number of each span's."""
    sizes = np.zeros(1 + sources.max(initial=-1), np.int64)
    np.add.at(sizes, sources, spans[:, 1] - spans[:, 0])
    owners = np.empty(len(sizes), np.int64)
    for worker, mine in enumerate(dealt(sizes, workers, seed, what)):
        owners[mine] = worker
    whose = owners[sources]
    order = np.argsort(whose, kind="stable")
    return np.split(spans[order], np.searchsorted(whose[order], np.arange(1, workers)))
