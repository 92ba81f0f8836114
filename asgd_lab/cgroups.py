"""The CPU quota and the memory limit of this process's control groups: a container's share of its machine.

A group is limited by itself and by every group above it, in version 1 (a tree for each controller), in version 2 (one
tree) and where both are mounted. Files below `root` are read, so that tests can make a tree. A file that cannot be read
limits nothing. No value is cached: limits change while a container runs.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

ROOT = Path("/")
UNLIMITED_BYTES = 1 << 62  # version 1 has no word for it, but a number of about 2^63


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted tree, or the part of one below `top`; `controllers` is None for version 2."""

    top: PurePosixPath
    at: Path
    controllers: frozenset[str] | None


class Quota(NamedTuple):
    """CPU time that a group may take, and CPU time that it has taken."""

    cores: float  # seconds a second
    taken_s: float  # by all of the group so far; NaN where that cannot be read


def cpu_quota(root: Path = ROOT) -> Quota | None:
    """The smallest quota of this process's groups; None where nothing limits them."""
    found = []
    for folder, version in _groups(root, "cpu"):
        if version == 2:
            quota, period = [*_numbers(folder / "cpu.max"), None, None][:2]
            used_us = _integer(_statistics(folder / "cpu.stat").get("usage_usec", ""))
            taken_s = math.nan if used_us is None else used_us * 1e-6
        else:
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
            used_ns = _number(folder / "cpuacct.usage")
            taken_s = math.nan if used_ns is None else used_ns * 1e-9
        if quota is not None and period is not None and quota > 0 and period > 0:
            found.append(Quota(quota / period, taken_s))
    return min(found, key=lambda quota: quota.cores, default=None)


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """The most memory that this process's groups may hold; None where nothing limits them."""
    return min((limit for limit, _ in _memory(root)), default=None)


def memory_left_bytes(root: Path = ROOT) -> int | None:
    """Bytes left to this process's groups, counting cached file pages as free. None where nothing limits them."""
    return min((max(0, limit - held) for limit, held in _memory(root)), default=None)


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """The limit of each group that has one, and the bytes that it holds beside cached file pages."""
    for folder, version in _groups(root, "memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, held = (_number(folder / name) for name in names)
        statistics, total = _statistics(folder / "memory.stat"), "" if version == 2 else "total_"
        if version == 1:
            # The limit of the groups above, which a container does not see.
            above = _integer(statistics.get("hierarchical_memory_limit", ""))
            limit = min((each for each in (limit, above) if each is not None), default=None)
        if limit is not None and 0 <= limit < UNLIMITED_BYTES:
            files = (_integer(statistics.get(f"{total}{which}_file", "")) for which in ("active", "inactive"))
            yield limit, max(0, (held or 0) - sum(size or 0 for size in files))


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's group of a controller and of all groups above it, each with its version."""
    mounts = list(_mounts(root))
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = 2 if (number, controllers) == ("0", "") else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        for mount in mounts:
            if mount.controllers is None if version == 2 else controller in (mount.controllers or ()):
                yield from ((folder, version) for folder in _upwards(mount, PurePosixPath(path)))
                break


def _upwards(mount: _Mount, group: PurePosixPath) -> Iterator[Path]:
    """The folders from a group's to its mount's. A group outside the mounted part is seen as the mount's own folder."""
    inside = group.relative_to(mount.top) if group.is_relative_to(mount.top) else PurePosixPath()
    parts = [] if ".." in inside.parts else list(inside.parts)
    for count in range(len(parts), -1, -1):
        yield mount.at.joinpath(*parts[:count])


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
            continue
        top, at = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), name) for name in left[3:5])
        controllers = None if right[0] == "cgroup2" else frozenset(right[2].split(","))
        yield _Mount(PurePosixPath(top), root / at.lstrip("/"), controllers)


def _statistics(path: Path) -> dict[str, str]:
    return dict(words for line in _lines(path) if len(words := line.split()) == 2)


def _number(path: Path) -> int | None:
    return next(iter(_numbers(path)), None)


def _numbers(path: Path) -> list[int | None]:
    return [_integer(word) for line in _lines(path)[:1] for word in line.split()]


def _integer(word: str) -> int | None:
    """The word as an integer; None for `max` and for anything else that is not one."""
    try:
        return int(word)
    except ValueError:
        return None


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).splitlines()
    except OSError:
        return []
