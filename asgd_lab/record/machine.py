"""The manifest's facts on where a run happened: versions, machine, commit. Packages are named without their import."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

import asgd_lab
from asgd_lab import cgroups

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "simpy", "pandas", "pyarrow")


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of the packages that it computes with; None if not installed."""
    return {
        "python": platform.python_version(),
        "asgd_lab": asgd_lab.__version__,
        **{name: _version(name) for name in PACKAGES},
    }


def machine() -> dict[str, Any]:
    """The processor, cores, memory and platform; cores and memory of the machine, and those this process may use."""
    memory_bytes, limit_bytes = psutil.virtual_memory().total, cgroups.memory_limit_bytes()
    quota = cgroups.cpu_quota()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "cpu_quota": None if quota is None else quota.cores,
        "memory_bytes": memory_bytes,
        "usable_memory_bytes": memory_bytes if limit_bytes is None else min(memory_bytes, limit_bytes),
        "platform": platform.platform(),
    }


def arithmetic() -> dict[str, Any]:
    """The facts, beside versions, that the bits of a computation may depend on: processor, instructions, threads."""
    import torch

    return {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads_per_process": 1,
    }


def usable_cores(root: Path = cgroups.ROOT) -> int:
    """The number of cores that this process may use, by its affinity and the quotas of its control groups.

    A quota's last part of a core counts as one.
    """
    cores, quota = len(os.sched_getaffinity(0)), cgroups.cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota.cores)))


@functools.cache
def commit() -> dict[str, Any] | None:
    """The commit of this package's source, and whether the source was modified since; None outside git."""
    source = str(Path(asgd_lab.__file__).parent)
    # An installed copy may lie inside another project's repository: only a tracked source has a commit.
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
