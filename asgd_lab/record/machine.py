"""What the manifest says of where a run happened: versions, machine, commit. It imports nothing that it only names."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

import asgd_lab

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "simpy", "pandas", "pyarrow")


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of what it computes with; None for what is not installed."""
    return {
        "python": platform.python_version(),
        "asgd_lab": asgd_lab.__version__,
        **{name: _version(name) for name in PACKAGES},
    }


def machine() -> dict[str, Any]:
    """The processor, the cores there are and those this process may use, memory in bytes, and the platform."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "platform": platform.platform(),
    }


def arithmetic() -> dict[str, Any]:
    """What the bits of a computation may depend on beside versions: the processor and its instructions, threads."""
    import torch

    return {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads_per_process": 1,
    }


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@functools.cache
def commit() -> dict[str, Any] | None:
    """The commit that this package's source is at, and whether it was modified since; None outside git."""
    source = str(Path(asgd_lab.__file__).parent)
    # An installed copy may lie inside somebody else's repository: only a tracked source has a commit.
    if _git(source, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    changes = _git(source, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return {"id": _git(source, "rev-parse", "HEAD"), "modified": bool(changes)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _git(directory: str, *arguments: str) -> str | None:
    command = ["git", "-C", directory, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
