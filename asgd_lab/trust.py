"""Trust: whether names in a scenario may import code. The caller of a run decides, and its processes inherit that.

A scenario is data. Names from torch, torchvision, this package and installed plugins are looked up among classes and
functions of the wanted kind. Any other name is somebody's code, which is imported only if that is trusted. The command
line trusts nothing unless `--trust` is given; a Python program that calls this package trusts, unless it runs
`with trusting(False)`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import operator
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from importlib import metadata
from typing import Any

PLUGINS = "asgd_lab."  # the prefix of the entry-point groups of plugins

Named = list[tuple[str, str]]
"""Pairs of a scenario's dotted key and the code that it names."""

_trusted: ContextVar[bool] = ContextVar("trusted", default=True)
_display: ContextVar[bool] = ContextVar("display", default=False)


def is_trusted() -> bool:
    """Whether any name may be imported."""
    return _trusted.get()


def decide(is_trusted: bool) -> None:
    """Decide for this process, which runs the work of another one."""
    _trusted.set(is_trusted)


def is_display() -> bool:
    """Whether recorded scenarios are read for their values alone, so that no code of anybody's is needed."""
    return _display.get()


@contextlib.contextmanager
def displaying() -> Iterator[None]:
    """Inside, a scenario is read for its values: somebody's code is not imported, and may be of another process."""
    before = _display.set(True)
    try:
        with trusting(False):
            yield
    finally:
        _display.reset(before)


@contextlib.contextmanager
def trusting(is_trusted: bool) -> Iterator[None]:
    """Decide for the calls inside."""
    before = _trusted.set(is_trusted)
    try:
        yield
    finally:
        _trusted.reset(before)


def named_in_code(name: str | Callable[..., Any]) -> Any:
    """The package.module:name that a class names, which is ours or was imported by its own name, so is trusted.

    A class that no module has may have the function itself.
    """
    if not isinstance(name, str):
        return name
    module_name, _, attribute = name.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module_name))


def search(folder: str) -> None:
    """Import trusted code from this folder too, which is searched last; processes of a run inherit that."""
    if is_trusted() and folder not in sys.path:
        sys.path.append(folder)


def is_plugin(name: str) -> bool:
    """Whether an installed distribution registers this package.module:name; the current directory installs nothing."""
    return any(point.value == name for point in plugins())


def plugins(group: str = "") -> list[metadata.EntryPoint]:
    """The entry points of installed distributions in this group, without the package's prefix; "": in all of its."""
    found = _plugins(tuple(outside_here(sys.path)))
    return [point for point in found if group in ("", point.group.removeprefix(PLUGINS))]


@functools.lru_cache(maxsize=8)
def _plugins(path: tuple[str, ...]) -> list[metadata.EntryPoint]:
    """Looked for once: a sweep asks at each of its points."""
    points = (point for each in metadata.distributions(path=list(path)) for point in each.entry_points)
    return [point for point in points if point.group.startswith(PLUGINS)]


def outside_here(path: list[str]) -> list[str]:
    """The module search path without the current directory."""
    here = os.path.realpath(os.getcwd())
    return [each for each in path if os.path.realpath(each or os.curdir) != here]


def refusal(named: Named) -> str:
    """The message that this code is not imported, with the option that would import it."""
    said = ", ".join(f"{name} ({key})" for key, name in named)
    return (
        f"{said} would be imported and run: it is not of torch, torchvision, this package or an installed plugin; "
        "add --trust if you trust its author"
    )
