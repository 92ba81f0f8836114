"""Places in the training text where a sequence may begin: in all of it, or in the part of it that a worker owns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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

    def __init__(self, spans: Sequence[tuple[int, int]], context: int) -> None:
        """`spans` have a beginning and an end each; one that is not longer than the context has no place."""
        begins, ends = np.array(spans, np.int64).reshape(-1, 2).T
        counts = np.maximum(ends - begins - context, 0)
        self._ends = np.cumsum(counts)
        self._shifts = begins - (self._ends - counts)
        self.count = int(counts.sum())

    def drawn(self, random: np.random.Generator, size: int) -> Tensor:
        """`size` places, each as likely as any other."""
        drawn: Indices = random.integers(0, self.count, size)
        return torch.from_numpy(drawn + self._shifts[np.searchsorted(self._ends, drawn, side="right")])


def divided(config: TextKeys, data: Data, workers: int, seed: int) -> list[Windows]:
    """Each worker's windows, or a single element if all workers share the text.

    A `ScenarioError` if there are fewer files or folders than workers, or if a worker's part has no whole sequence.
    """
    length, division = len(data["train_text"]), config.data
    parts: list[list[tuple[int, int]]] = [[(0, length)]]
    if isinstance(division, BySource):
        spans = data["train_spans"].tolist()
        sizes = np.zeros(1 + max((number for *_, number in spans), default=-1), np.int64)
        for begin, end, number in spans:
            sizes[number] += end - begin
        owned = dealt(sizes, workers, seed, f"{division.key}s")
        parts = [[(begin, end) for begin, end, number in spans if number in set(mine)] for mine in owned]
    elif isinstance(division, Spans):
        parts = [[span] for span in itertools.pairwise(length * each // workers for each in range(workers + 1))]
    found = [Windows(part, config.context) for part in parts]
    for worker, (part, windows) in enumerate(zip(parts, found, strict=True)):
        if not windows.count:
            what = f"worker {worker} gets {sum(end - begin for begin, end in part):,} tokens"
            raise ScenarioError.at(
                "task.data", f"{what}, no piece of which is longer than the context, {config.context}"
            )
    return found
