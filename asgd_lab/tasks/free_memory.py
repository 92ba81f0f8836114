"""What a scenario asks for is weighed before it is made."""

from __future__ import annotations

import psutil

from asgd_lab.errors import ScenarioError


def check_free_memory(key: str, what: str, size_bytes: int) -> None:
    """A `ScenarioError` at `key` where so many bytes are more than the memory that is free."""
    free_bytes = psutil.virtual_memory().available
    if size_bytes > free_bytes:
        sizes = f"{size_bytes / 1e9:,.1f} GB, and {free_bytes / 1e9:,.1f} GB of memory are free"
        raise ScenarioError.at(key, f"{what} {sizes}")
