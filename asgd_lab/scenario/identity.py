"""Comparison of two scenarios, value by value, whatever their layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any, NamedTuple

from asgd_lab.scenario.schema import Scenario
from asgd_lab.scenario.source import Source

_ABSENT = object()
_LONGEST = 60  # characters of a value that are shown


class Difference(NamedTuple):
    """The first key whose values differ, as text for a reader."""

    key: str
    one: str
    other: str


def values_sha256(text: str) -> str:
    """The hash of a file's values: independent of comments, layout and the order of keys."""
    values = Source(where=lambda line: f"line {line}").parse(text).data
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def first_difference(one: Scenario, other: Scenario, ignored: Collection[str] = ()) -> Difference | None:
    """The first difference in the order of the schema, except `ignored` keys; None if they state the same."""
    return _first(one.model_dump(), other.model_dump(), "", ignored)


def _first(one: Any, other: Any, key: str, ignored: Collection[str]) -> Difference | None:
    if key in ignored:
        return None
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(name, one.get(name, _ABSENT), other.get(name, _ABSENT)) for name in dict.fromkeys([*one, *other])]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(index, *both) for index, both in enumerate(zip(one, other, strict=True))]
    else:
        same = one is other or (one == other and isinstance(one, bool) == isinstance(other, bool))
        return None if same else Difference(key, _shown(one), _shown(other))
    for part, here, there in pairs:
        found = _first(here, there, f"{key}.{part}" if key else str(part), ignored)
        if found is not None:
            return found
    return None


def _shown(value: Any) -> str:
    text = "absent" if value is _ABSENT else "null" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
