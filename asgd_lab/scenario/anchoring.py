"""Paths in a scenario become absolute, so that a recorded scenario does not depend on the command's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, TypeVar

from asgd_lab.configuration import Folder, Part
from asgd_lab.errors import ScenarioError

P = TypeVar("P", bound=Part)


def anchored(part: P, key: str = "") -> P:
    """The part with every path in it absolute; a relative one starts at the current directory, `~` at the home."""
    changed: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value, inner = getattr(part, name), f"{key}.{name}" if key else name
        if isinstance(value, Part):
            new: Any = anchored(value, inner)
        elif isinstance(value, str) and Folder() in field.metadata:
            new = _absolute(value, inner)
        else:
            continue
        if new is not value:
            changed[name] = new
    return part.model_copy(update=changed) if changed else part


def folders(part: Part, key: str = "") -> Iterator[tuple[str, str]]:
    """Every path in the part, by its dotted key."""
    for name, field in type(part).model_fields.items():
        value, inner = getattr(part, name), f"{key}.{name}" if key else name
        if isinstance(value, Part):
            yield from folders(value, inner)
        elif isinstance(value, str) and Folder() in field.metadata:
            yield inner, value


def _absolute(path: str, key: str) -> str:
    absolute = os.path.abspath(os.path.expanduser(path))
    try:
        absolute.encode()
    except UnicodeEncodeError:
        where = os.fsencode(absolute).decode(errors="replace")
        raise ScenarioError.at(key, f"{where} is not UTF-8, which a scenario can hold; give an absolute path") from None
    return path if path == absolute else absolute
