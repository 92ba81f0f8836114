"""Whether names in a scenario may import code: decided by whoever asks for a run, handed to every process it starts.

A scenario is data. What it names of torch, torchvision, this package and installed plugins is looked up among classes
and functions of the wanted kind. Any other name is code of somebody, which is imported only where that is trusted.
The command line trusts nothing unless `--trust` is given; a Python program that calls this package trusts, unless it
runs `with trusting(False)`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from importlib import metadata

PLUGINS = "asgd_lab."  # what the groups of entry points begin with that plugins are registered in

Named = list[tuple[str, str]]
"""Dotted keys of a scenario, and the code that each names."""

_trusted: ContextVar[bool] = ContextVar("trusted", default=True)


def is_trusted() -> bool:
    """Whether any name may be imported."""
    return _trusted.get()


def decide(is_trusted: bool) -> None:
    """Decide for this process, which runs what another one handed to it."""
    _trusted.set(is_trusted)


@contextlib.contextmanager
def trusting(is_trusted: bool) -> Iterator[None]:
    """Decide for what is done inside."""
    before = _trusted.set(is_trusted)
    try:
        yield
    finally:
        _trusted.reset(before)


def is_plugin(name: str) -> bool:
    """Whether an installed distribution registers this package.module:name; the current directory installs nothing."""
    installed = metadata.distributions(path=outside_here(sys.path))
    points = (point for each in installed for point in each.entry_points)
    return any(point.value == name and point.group.startswith(PLUGINS) for point in points)


def outside_here(path: list[str]) -> list[str]:
    """The module search path without the current directory."""
    here = os.path.realpath(os.getcwd())
    return [each for each in path if os.path.realpath(each or os.curdir) != here]


def refusal(named: Named) -> str:
    """Why that code is not imported, and how it would be."""
    said = ", ".join(f"{name} ({key})" for key, name in named)
    return (
        f"{said} would be imported and run: it is not of torch, torchvision, this package or an installed plugin; "
        "add --trust if you trust its author"
    )
