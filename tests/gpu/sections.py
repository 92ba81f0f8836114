"""The sections of `make gpu`: what each is, where it is, and how many seconds it may take."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Section(NamedTuple):
    """One, which is a process of its own: `module` has a function `measure(place, folder)` that yields rows."""

    number: int
    name: str
    module: str
    limit_s: float
    alone: bool = True
    """Whether it measures times, so that nothing else may run."""
    runs: bool = True
    """Whether it starts real workers, whose fork server imports beside the section."""


def _section(number: int, name: str, limit_s: float, alone: bool = True, runs: bool = True) -> Section:
    return Section(number, name, f"tests.gpu.{name}", limit_s, alone, runs)


SECTIONS = (
    _section(1, "machine", 20, alone=False),
    _section(2, "cuda", 42, alone=False, runs=False),
    _section(3, "bits", 40, alone=False),
    _section(9, "replays", 36, alone=False),
    _section(11, "refusals", 30, alone=False, runs=False),
    _section(4, "staging", 30, runs=False),
    _section(5, "scaling", 52),
    _section(6, "exchange", 44),
    _section(7, "prediction", 38),
    _section(8, "deaths", 50),
    _section(10, "replicas", 32, runs=False),
)
"""In the order in which they begin; number 12 is the verdict on them."""


def batches(sections: Sequence[Section]) -> list[list[Section]]:
    """Those that may run side by side."""
    groups = itertools.groupby(enumerate(sections), lambda each: each[0] if each[1].alone else -1)
    return [[section for _, section in group] for _, group in groups]


def due_s(batch: Sequence[Section], jobs: int) -> float:
    """Seconds that a batch may take with so many of it at a time."""
    limits = [section.limit_s for section in batch]
    return max(*limits, sum(limits) / min(jobs, len(batch)))
