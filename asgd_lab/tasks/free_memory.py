"""The free memory of the machine, checked before large tensors are made."""

from __future__ import annotations

import psutil

from asgd_lab.errors import ScenarioError


def check_free_memory(key: str, what: str, size_bytes: int) -> None:
    """A `ScenarioError` at `key` if `size_bytes` exceeds the free memory; `what` begins its sentence."""
    free_bytes = psutil.virtual_memory().available
    if size_bytes > free_bytes:
        sizes = f"{size_bytes / 1e9:,.1f} GB, and {free_bytes / 1e9:,.1f} GB of memory are free"
        raise ScenarioError.at(key, f"{what} {sizes}")
