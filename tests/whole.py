"""Enumerations too long for every run of the tests: a seeded sample by default, whole under ASGD_LAB_WHOLE=1."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import TypeVar

Case = TypeVar("Case")

WHOLE = os.environ.get("ASGD_LAB_WHOLE") == "1"


def sample(cases: Iterable[Case], count: int, seed: int = 0) -> list[Case]:
    """All of the cases where the whole enumeration is asked for, otherwise `count` of them, always the same ones."""
    everything = list(cases)
    if WHOLE or len(everything) <= count:
        return everything
    chosen = sorted(random.Random(seed).sample(range(len(everything)), count))
    return [everything[place] for place in chosen]
