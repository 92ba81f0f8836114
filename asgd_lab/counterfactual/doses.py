"""Doses of staleness: each fetch of a run is moved from its recorded version to a later one.

The latest version that a fetch may bring is the one that is current when its worker's next push arrives: that push has
the first work on it, so no later one can be known. Between the two, a dose d keeps the share d of the versions: dose 1
is the record, and dose 0 leaves no staleness but what several pushes from one fetch, or a wait before the merge, make.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asgd_lab.streams import key

Fetched = tuple[int, int, int, int]
"""A fetch: worker, incarnation, number and part."""


class Window(NamedTuple):
    """A fetch that brought parameters: the version recorded, and the latest that it could have brought."""

    fetch: Fetched
    recorded: int
    latest: int


Targets = Mapping[Fetched, int]
"""The version that each fetch brings."""


def moved(windows: Sequence[Window], dose: float) -> Targets:
    """The versions at this dose; `windows` are in the order in which their vectors were used.

    A share of a version is rounded up or down by a number of each fetch's own, so that the mean keeps the dose. A fetch
    never brings an older version than an earlier one of the same worker.
    """
    found: dict[Fetched, int] = {}
    last: dict[tuple[int, int, int], int] = {}
    for fetch, recorded, latest in windows:
        worker, incarnation, number, part = fetch
        uniform = key(0, "dose", worker, incarnation, number, part + 1) / 2**63
        kept = math.floor(dose * (latest - recorded) + uniform) if dose < 1 else latest - recorded
        whose = worker, incarnation, part
        found[fetch] = last[whose] = max(latest - kept, last.get(whose, 0))
    return found
