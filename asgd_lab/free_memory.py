"""The memory that is free for this process: of the machine, and of what its container may hold."""

from __future__ import annotations

from pathlib import Path

import psutil

from asgd_lab import cgroups


def free_memory_bytes(root: Path | None = None) -> int:
    """The memory that this process may still take: of the machine's, and of what its control groups may hold."""
    left = cgroups.memory_left_bytes(root or cgroups.ROOT)
    available: int = psutil.virtual_memory().available
    return available if left is None else min(available, left)
