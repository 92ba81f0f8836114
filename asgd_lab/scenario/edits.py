"""Values put at dotted keys of plain data, by `--set` and by a sweep, before validation."""

from __future__ import annotations

import copy
from typing import Any

import asgd_lab.scenario.places as places
from asgd_lab.configuration import widened
from asgd_lab.errors import ScenarioError
from asgd_lab.scenario.faults import show
from asgd_lab.scenario.keys import split


class _Removed:
    """The kind of `REMOVED`."""

    def __deepcopy__(self, memo: object) -> _Removed:
        """The same object, so that it can be recognised."""
        return self


REMOVED = _Removed()
"""In the place of a value: the key is removed."""


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Put a copy of `value` at `key`, in place; missing parents start from their defaults. `REMOVED` removes the key.

    A bare name on the way becomes the mapping it stands for. Validation decides whether the key may exist.
    """
    if value is REMOVED:
        _remove(data, key)
        return
    path = split(key)
    parent: Any = data
    for depth, part in enumerate(path[:-1], start=1):
        child = _child(parent, part, key)
        place = places.root().walk(path[:depth])
        if child is None:
            child = _start(place)
        elif place and place.names and any(option.get("type") == "string" for option in place.options):
            child = widened(child)
        _store(parent, part, child)
        parent = child
    _child(parent, path[-1], key)
    _store(parent, path[-1], copy.deepcopy(value))


def _remove(data: dict[str, Any], key: str) -> None:
    *path, last = split(key)
    parent: Any = data
    for part in path:
        parent = _child(parent, part, key)
        if parent is None or isinstance(parent, str):  # a bare name has no other key
            return
    if not isinstance(parent, dict):
        raise ScenarioError.at(key, "cannot be removed: it is no key of a mapping; set the whole value above it")
    parent.pop(str(last), None)


def _start(place: places.Place | None) -> Any:
    """The default of a place; {} if it only repeats the defaults of its keys, which would hide a preset's values."""
    if place is None or place.default is None:
        return {}
    spelt_out = isinstance(place.default, dict) and not any(one.get("required") for one in place.mappings)
    return {} if spelt_out else copy.deepcopy(place.default)


def _store(parent: Any, part: str | int, value: Any) -> None:
    parent[part if isinstance(parent, list) else str(part)] = value


def _child(parent: Any, part: str | int, key: str) -> Any:
    """The value at a key or an index, None for a missing key; ScenarioError if nothing can be put there."""
    if isinstance(parent, dict):
        return parent.get(str(part))
    if isinstance(parent, list) and isinstance(part, int):
        if part < len(parent):
            return parent[part]
        raise ScenarioError.at(key, f"the list has no item {part}; it has {len(parent)}, counted from 0")
    raise ScenarioError.at(key, f"cannot be set: there is no {part!r} in {show(parent)}; set the whole value above it")
