"""What a container may use, read from made trees of control groups."""

from __future__ import annotations

import itertools
import os
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from asgd_lab.cgroups import cpu_quota, memory_left_bytes, memory_limit_bytes
from asgd_lab.free_memory import free_memory_bytes
from asgd_lab.record.machine import usable_cores
from tests.whole import sample

GB = 10**9
UNLIMITED = 2**63 - 4096  # version 1's word for it
V2 = "30 1 0:1 {top} /sys/fs/cgroup{at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 1 0:2 {top} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
LIMITS = {"none": (None, None), "half": (0.5, GB // 2), "two": (2.0, 2 * GB), "many": (512.0, 900 * GB)}


class Tree:
    """A root folder with the groups of one process."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def mounts(self, *lines: str) -> None:
        self.write("proc/self/mountinfo", "22 1 0:20 / /proc rw - proc proc rw\n" + "".join(lines))

    def groups(self, *lines: str) -> None:
        self.write("proc/self/cgroup", "".join(f"{line}\n" for line in lines))

    def v2(self, folder: str, cores: float | None, memory: int | None, held: int = 0, cached: int = 0) -> None:
        at = f"sys/fs/cgroup/{folder}"
        self.write(f"{at}/cpu.max", f"{'max' if cores is None else round(cores * 100_000)} 100000\n")
        self.write(f"{at}/cpu.stat", "usage_usec 2500000\nuser_usec 2000000\n")
        self.write(f"{at}/memory.max", f"{'max' if memory is None else memory}\n")
        self.write(f"{at}/memory.current", f"{held}\n")
        self.write(f"{at}/memory.stat", f"anon 7\nactive_file {cached // 4}\ninactive_file {cached - cached // 4}\n")

    def v1(self, folder: str, cores: float | None, memory: int | None, held: int = 0, cached: int = 0) -> None:
        cpu, ram = (f"sys/fs/cgroup/{name}/{folder}" for name in ("cpu,cpuacct", "memory"))
        self.write(f"{cpu}/cpu.cfs_quota_us", f"{-1 if cores is None else round(cores * 50_000)}\n")
        self.write(f"{cpu}/cpu.cfs_period_us", "50000\n")
        self.write(f"{cpu}/cpuacct.usage", "2500000000\n")
        self.write(f"{ram}/memory.limit_in_bytes", f"{UNLIMITED if memory is None else memory}\n")
        self.write(f"{ram}/memory.usage_in_bytes", f"{held}\n")
        of_all = f"total_active_file {cached // 4}\ntotal_inactive_file {cached - cached // 4}\n"
        self.write(f"{ram}/memory.stat", f"active_file 1\ninactive_file 1\n{of_all}")

    def made(self, layout: str, limits: list[tuple[float | None, int | None]], **held: int) -> None:
        """A group in a group in ..., the outermost first, as `layout` has them."""
        folders = ["/".join(["a"] * depth) for depth in range(len(limits))]
        group = "/" + folders[-1]
        if layout in ("v2", "v2 of a namespace"):
            self.mounts(V2.format(top="/" if layout == "v2" else "/docker/x", at=""))
            self.groups(f"0::{group}" if layout == "v2" else f"0::/docker/x{group.rstrip('/')}")
        else:
            hybrid = [V2.format(top="/", at="/unified")] if layout == "hybrid" else []
            top = "/docker/x" if layout == "v1 of a container" else "/"
            self.mounts(*hybrid, *(V1.format(top=top, name=name) for name in ("cpu,cpuacct", "memory", "pids")))
            path = f"{top.rstrip('/')}{group}".rstrip("/") or "/"
            self.groups("9:name=systemd:/init", f"4:memory:{path}", f"1:cpu,cpuacct:{path}", "0::/")
        write = self.v2 if layout.startswith("v2") else self.v1
        for folder, (cores, memory) in zip(folders, limits, strict=True):
            write(folder, cores, memory, **held)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "root")


LAYOUTS = ["v2", "v2 of a namespace", "v1", "v1 of a container", "hybrid"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_smallest_limit_of_a_group_and_of_all_above_it_holds(layout: str, tmp_path: Path) -> None:
    nestings = itertools.chain.from_iterable(itertools.product(LIMITS, repeat=depth) for depth in (1, 2, 3))
    for number, names in enumerate(sample(nestings, 20)):
        tree = Tree(tmp_path / str(number))
        tree.made(layout, [LIMITS[name] for name in names], held=3 * GB // 10, cached=GB // 10)
        cores = min((LIMITS[name][0] for name in names if LIMITS[name][0] is not None), default=None)
        memory = min((LIMITS[name][1] for name in names if LIMITS[name][1] is not None), default=None)
        quota = cpu_quota(tree.root)
        assert (None if quota is None else quota.cores) == cores, names
        assert quota is None or quota.taken_s == pytest.approx(2.5)
        assert memory_limit_bytes(tree.root) == memory, names
        assert memory_left_bytes(tree.root) == (None if memory is None else memory - 2 * GB // 10), names


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cores_and_memory_are_the_least_of_the_machine_and_the_container(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", ["available"])(3 * GB))
    found = {}
    for name, quota in {"unlimited": None, "1": 1.0, "1.5": 1.5, "a tenth": 0.1, "7.99": 7.99, "9": 9.0}.items():
        tree = Tree(tmp_path / name)
        tree.made(layout, [(quota, None if quota is None else round(quota * GB))])
        found[name] = (usable_cores(tree.root), free_memory_bytes(tree.root))
    assert found == {
        "unlimited": (8, 3 * GB),
        "1": (1, GB),
        "1.5": (2, 3 * GB // 2),
        "a tenth": (1, GB // 10),
        "7.99": (8, 3 * GB),
        "9": (8, 3 * GB),
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_container_that_holds_more_than_it_may_has_nothing_left(layout: str, tree: Tree) -> None:
    tree.made(layout, [(None, GB)], held=2 * GB)
    assert memory_left_bytes(tree.root) == 0


def test_a_limit_above_what_a_container_sees_of_its_tree_holds(tree: Tree) -> None:
    tree.made("v1", [(None, None)])
    tree.write("sys/fs/cgroup/memory/memory.stat", f"hierarchical_memory_limit {GB}\n")
    assert memory_limit_bytes(tree.root) == GB


@pytest.mark.parametrize("path", ["/../../elsewhere", "/not/below/it", "/"])
def test_a_group_outside_the_mounted_part_is_the_mount_itself(path: str, tree: Tree) -> None:
    tree.made("v2", [(2.0, GB)])
    tree.mounts(V2.format(top="/docker/x", at=""))
    tree.groups(f"0::{path}")
    assert memory_limit_bytes(tree.root) == GB
    assert usable_cores(tree.root) <= 2


def test_a_mount_may_have_a_space_in_its_name(tree: Tree) -> None:
    tree.mounts(r"30 1 0:1 / /sys/fs/my\040groups rw - cgroup2 cgroup2 rw" + "\n")
    tree.groups("0::/")
    tree.write("sys/fs/my groups/memory.max", "5\n")
    assert memory_limit_bytes(tree.root) == 5


DAMAGES = {
    "absent": None,
    "empty": "",
    "no number": "many thanks\n",
    "zero": "0 0\n",
    "a folder": "folder",
    "bytes": "\0",
}


@pytest.mark.parametrize("layout", ["v2", "v1"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_limits_nothing(layout: str, damage: str, tmp_path: Path) -> None:
    whole = Tree(tmp_path / "whole")
    whole.made(layout, [(2.0, GB)])
    names = sorted(str(path.relative_to(whole.root)) for path in whole.root.rglob("*") if path.is_file())
    assert len(names) >= 7
    for name in names:
        tree = Tree(tmp_path / name.replace("/", "-"))
        tree.made(layout, [(2.0, GB)])
        (tree.root / name).unlink()
        if damage == "a folder":
            (tree.root / name).mkdir()
        elif (text := DAMAGES[damage]) is not None:
            (tree.root / name).write_text(text)
        quota, limit, left = cpu_quota(tree.root), memory_limit_bytes(tree.root), memory_left_bytes(tree.root)
        assert quota is None or quota.cores == 2.0
        assert limit in (None, GB) or (damage == "zero" and limit == 0)  # 0 is a limit that version 2 knows
        assert left == limit
        assert (quota is not None) + (limit is not None) >= ("proc/self" not in name)
        assert usable_cores(tree.root) >= 1
        assert free_memory_bytes(tree.root) >= 0


def test_this_machine_itself_can_be_asked() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    assert 0 < free_memory_bytes() <= psutil.virtual_memory().total
