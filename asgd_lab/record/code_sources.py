"""The user's own source files that a run imported: the path of each, and its digest.

From a module that the scenario names, imports are followed within its own folder tree, by reading the source and not by
running it; computed imports are not seen. A recorded entry without a file is of an object of the run's own process.
Libraries have versions in the manifest instead.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asgd_lab.record import atomic_files

_NAME = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
_LIBRARIES = ("torch", "torchvision", "asgd_lab")

Sources = dict[str, dict[str, str]]


def used(values: Any) -> Sources:
    """For each imported module that these values name, and those it imports: its `file` and `sha256`."""
    found: dict[str, Path] = {}
    for name in sorted(set(_named(values))):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and name.partition(".")[0] not in _LIBRARIES:
            _follow(name, Path(os.path.abspath(file)), found)
    return {name: {"file": str(path), "sha256": digest} for name, path in found.items() if (digest := _sha256(path))}


def changed(recorded: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each module whose source now differs from the recorded one."""
    lines = []
    for name, source in _in_files(recorded):
        file = getattr(sys.modules.get(name), "__file__", None) or source["file"]
        digest = _sha256(Path(file))
        if digest != source["sha256"]:
            what = "has changed since" if digest else "is gone"
            lines.append(f"the source of {name}, {file}, {what}")
    return lines


def roots(recorded: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The existing folders from which the recorded modules can be imported again."""
    found = {str(_root(name, Path(source["file"]))) for name, source in _in_files(recorded)}
    return sorted(root for root in found if os.path.isdir(root))


def _in_files(recorded: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, Mapping[str, str]]]:
    return ((name, source) for name, source in recorded.items() if "file" in source)


def _named(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        if match := _NAME.fullmatch(values):
            yield match.group(1)
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _named(value)
    elif isinstance(values, list):
        for value in values:
            yield from _named(value)


def _follow(name: str, file: Path, found: dict[str, Path]) -> None:
    root, is_library = _root(name, file), "-packages" in str(file)
    waiting = [(name, file)]
    while waiting:
        module, path = waiting.pop()
        if module in found:
            continue
        found[module] = path
        for each in () if is_library else _imports(module, path):
            parts = each.split(".")
            for depth in range(1, len(parts) + 1):  # importing a.b imports a
                place = root.joinpath(*parts[:depth])
                for candidate in (place.with_name(place.name + ".py"), place / "__init__.py"):
                    if candidate.is_file():
                        waiting.append((".".join(parts[:depth]), candidate))


def _imports(module: str, path: Path) -> Iterator[str]:
    parts = module.split(".")
    yield module
    try:
        tree = ast.parse(atomic_files.read_bytes(path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *((node.module or "").split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _root(name: str, file: Path) -> Path:
    """The folder on the search path in which a module was found."""
    inside = name.count(".") + (file.name == "__init__.py")
    return file.parents[inside] if inside < len(file.parents) else file.parent


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(atomic_files.read_bytes(path)).hexdigest()
    except OSError:
        return None
