"""The sections of `make gpu`, in order: what each is, where it is, and how many seconds it may take."""

from __future__ import annotations

from typing import NamedTuple


class Section(NamedTuple):
    """One, which is a process of its own: `module` has a function `measure(place, folder)` that yields rows.

    It may take `limit_s`, and what those before it have left of theirs.
    """

    name: str
    module: str
    limit_s: float


_LIMITS_S = {
    "machine": 20,
    "cuda": 32,
    "bits": 25,
    "staging": 28,
    "scaling": 40,
    "exchange": 36,
    "prediction": 36,
    "deaths": 28,
    "replays": 13,
    "replicas": 18,
    "refusals": 14,
}
SECTIONS = tuple(Section(name, f"tests.gpu.{name}", limit_s) for name, limit_s in _LIMITS_S.items())
"""All but the last, number 12, which is the verdict on them; 290 s together."""
