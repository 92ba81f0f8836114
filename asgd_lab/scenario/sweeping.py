"""Checks of a sweep: its keys and values, a point's choice among them, and the place of a point's fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import asgd_lab.scenario.places as places
import asgd_lab.scenario.writing as writing
from asgd_lab import choices
from asgd_lab.errors import shortened
from asgd_lab.scenario.faults import Fault, unknown_key
from asgd_lab.scenario.keys import covers, split

Choice = tuple[tuple[str, int, Any], ...]
"""For each swept key, the index of the point's value, and the value."""


def faults(data: Mapping[str, Any]) -> list[Fault]:
    """Faults of the sweep's keys; none if it is not a mapping, which its type check reports."""
    sweep = data.get("sweep")
    return list(_wrong_keys(sweep, list(_unread(data)))) if isinstance(sweep, dict) else []


def _unread(value: object, key: str = "") -> Iterator[str]:
    """The keys of mappings of users' classes that were not imported, so that their own keys are unknown."""
    if isinstance(value, dict):
        for part, inside in value.items():
            yield from _unread(inside, str(part) if key in ("", "sweep") else f"{key}.{part}")
    elif isinstance(value, list):
        for inside in value:
            yield from _unread(inside, key)
    elif isinstance(value, str) and key.endswith(".name") and not choices.is_known(value):
        yield key.removesuffix(".name")


def _wrong_keys(sweep: dict[str, Any], unread: Sequence[str]) -> Iterator[Fault]:
    """Unknown keys, and repeated keys or values."""
    root = places.root()
    seen: list[str] = []
    for key, values in sweep.items():
        parts = split(key)
        known = next(depth for depth in range(len(parts), -1, -1) if root.walk(parts[:depth]))
        if parts[0] == "sweep":
            yield Fault(("sweep", key), "cannot be swept; sweep keys of the scenario other than sweep")
        elif known < len(parts) and not any(covers(one, key) for one in unread):
            place = root.walk(parts[:known]) or root
            yield Fault(("sweep", key), unknown_key(parts[: known + 1], place).message)
        for other in seen:
            if covers(key, other):
                yield Fault(("sweep", key), f"would undo {other}; put it first, or sweep one of the two")
        seen.append(key)
        written: set[str] = set()
        for index, value in enumerate(values if isinstance(values, list) else ()):
            one = writing.brief({key: value})
            if one in written:
                yield Fault(("sweep", key, index), f"has {shortened(one, 80)} twice; name each value once")
            written.add(one)


def choice(lists: Sequence[Sequence[tuple[str, int, Any]]], number: int) -> Choice:
    """The point of that number in the product of the lists; the first list varies slowest."""
    chosen = []
    for values in reversed(lists):
        number, index = divmod(number, len(values))
        chosen.append(values[index])
    return tuple(reversed(chosen))


def brief(values: dict[str, Any]) -> str:
    """Values in the short form for messages."""
    return shortened(writing.brief(values), 120)


def blamed(fault: Fault, choice: Choice, point: str) -> Fault:
    """The fault of a point, moved to the swept value that contains it; else with the point's name."""
    for key, index, value in reversed(choice):
        if covers(key, fault.key):
            inside = fault.path[len(split(key)) :]
            nested = f"{fault.key}: " if inside else ""
            message = f"at {brief({key: value})}: {nested}{fault.message}"
            return Fault(("sweep", key, index, *inside), message, written=f"sweep.{key}")
    return Fault(fault.path, fault.message, point=point)
