"""What the operating system refuses is one line and a status; the manifest of a run that began says failed."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgd_lab.errors import refusal
from asgd_lab.record.run import read_manifest, read_summary
from tests.cli.harness import ENDLESS, QUADRATIC, Said, assert_nobody_is_left, finish, start
from tests.whole import sample

LONG = QUADRATIC.replace("minibatches: 40", "minibatches: 40_000")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 60 kB, for whoever may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60k", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def run(folder: Path, text: str, *arguments: str | Path, **environment: str) -> Said:
    (folder / "scenario.yaml").write_text(text)
    program = start("run", "scenario.yaml", *arguments, folder=folder, environment=environment)
    said = finish(program)
    assert_nobody_is_left(program.pid)
    assert "Traceback" not in said.err
    return said


WAYS = {
    "sim": [],
    "inline": ["--backend", "inline"],
    "process": ["--backend", "process"],
    "sweep of one process": ["--set", "sweep.seed=[1, 2]", "--jobs", "1"],
    "sweep of two processes": ["--set", "sweep.seed=[1, 2]", "--jobs", "2"],
}


@pytest.mark.parametrize("way", sample(WAYS, 2, seed=1))
def test_a_full_disk_fails_a_run_in_one_line_and_in_its_manifest(way: str, tmp_path: Path, small_disk: Path) -> None:
    said = run(tmp_path, LONG, "--out", small_disk / "out", *WAYS[way])
    assert said.status in (1, 2)  # 2 if there is no room for a beginning
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= 2
    assert all("No space left on device" in line for line in lines)
    manifests = [path.parent for path in (small_disk / "out").rglob("manifest.json")]
    assert {read_manifest(path)["status"] for path in manifests} == {"failed"}


def test_a_temporary_folder_of_any_length_will_do(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 108)
    long.mkdir()
    said = run(tmp_path, ENDLESS.replace("seconds: 600", "minibatches: 40"), "--out", "out", TMPDIR=str(long))
    assert (said.status, said.err) == (0, "")
    assert read_summary(tmp_path / "out")["status"] == "done"
    assert not list(long.glob("pymp-*"))


def test_a_low_limit_of_open_files_is_raised_as_far_as_it_may_be(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(ENDLESS.replace("seconds: 600", "minibatches: 40"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = subprocess.run(
        [sys.executable, "-m", "asgd_lab", "run", "scenario.yaml", "--out", "out"],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, most)),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_refused_is_named_with_its_file_and_other_errors_are_left_alone() -> None:
    assert refusal(PermissionError(13, "Permission denied", "out/logs")) == "out/logs: Permission denied"
    assert refusal(MemoryError()) == "out of memory"
    assert refusal(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")) is not None
    assert refusal(RuntimeError("a bug")) is None
    assert refusal(ZeroDivisionError("a bug")) is None
