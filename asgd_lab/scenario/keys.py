"""Places of values: the path from the top of the file, and the dotted key; text and tuples only."""

from __future__ import annotations

import json

Path = tuple[str | int, ...]  # keys of mappings and indices of lists


def dotted(path: Path) -> str:
    """The key as a reader writes it."""
    return ".".join(map(str, path))


def subscripts(path: Path) -> str:
    """The path as Python has it: ["algorithm"]["n_sync"]."""
    return "".join(f"[{json.dumps(part, ensure_ascii=False)}]" for part in path)


def split(key: str) -> Path:
    """The path of a dotted key: a number is an index, and everything after `sweep.` is one key."""
    if key.startswith("sweep."):
        return ("sweep", key.removeprefix("sweep."))
    return tuple(int(part) if _is_index(part) else part for part in key.split("."))


def _is_index(part: str) -> bool:
    return len(part) < 10 and part.isdecimal() and part == str(int(part))


def covers(outer: str, inner: str) -> bool:
    """Whether a dotted key equals another one, or contains it."""
    return inner == outer or inner.startswith(outer + ".")
