"""What the operating system refuses is one line and a status; the manifest of a run that began says failed."""

from __future__ import annotations

import itertools
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import asgd_lab
from asgd_lab.errors import refusal
from asgd_lab.record.run import read_manifest, read_summary
from tests.cli.harness import ENDLESS, QUADRATIC, Said, assert_nobody_is_left, finish, start
from tests.whole import sample

LONG = QUADRATIC.replace("minibatches: 40", "minibatches: 40_000")


# A mount that this shell makes is seen by its children alone, and is gone with the last of them, however that one ends.
SMALL_DISK = 'mount -t tmpfs -o size=60k none small && "$@"; status=$?; cp -r small/. kept; exit $status'


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
def test_a_full_disk_fails_a_run_in_one_line_and_in_its_manifest(way: str, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", tmp_path], check=False).returncode:
        pytest.skip("needs to mount a file system")
    (tmp_path / "small").mkdir()
    (tmp_path / "scenario.yaml").write_text(LONG)
    inside = ["unshare", "--mount", "sh", "-c", SMALL_DISK, "sh"]
    program = start("run", "scenario.yaml", "--out", "small/out", *WAYS[way], folder=tmp_path, inside=inside)
    said = finish(program)
    assert_nobody_is_left(program.pid)
    assert said.status in (1, 2)  # 2 if there is no room for a beginning
    lines = [line for line in said.err.splitlines() if not line.startswith("warning: ")]
    assert 1 <= len(lines) <= 2
    assert all("No space left on device" in line for line in lines)
    manifests = [path.parent for path in (tmp_path / "kept" / "out").rglob("manifest.json")]
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


def descriptors(number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def limit(which: int, number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (number, number))


LIMITS: dict[str, tuple[Callable[[], None], dict[str, str]]] = {
    "12 descriptors": (descriptors(12), {}),
    "16 descriptors": (descriptors(16), {}),
    "24 descriptors": (descriptors(24), {}),
    "40 descriptors": (descriptors(40), {}),
    "400 MB of addresses": (limit(resource.RLIMIT_AS, 400 << 20), {}),
    "700 MB of addresses": (limit(resource.RLIMIT_AS, 700 << 20), {}),
    "1 GB of addresses": (limit(resource.RLIMIT_AS, 1 << 30), {}),
    "files of 0 bytes": (limit(resource.RLIMIT_FSIZE, 0), {}),
    "files of 4 kB": (limit(resource.RLIMIT_FSIZE, 4096), {}),
    "files of 40 kB": (limit(resource.RLIMIT_FSIZE, 40_000), {}),
    "no core files": (limit(resource.RLIMIT_CORE, 0), {}),
    "no temporary folder": (lambda: None, {"TMPDIR": "/nonexistent"}),
    "a temporary folder that is none": (lambda: None, {"TMPDIR": "/dev/null"}),
    "no home": (lambda: None, {"HOME": "/nonexistent", "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}),
    "a home that is a file": (lambda: None, {"HOME": "/dev/null", "XDG_STATE_HOME": "/dev/null/x"}),
}


@pytest.mark.parametrize(("name", "way"), sample(itertools.product(LIMITS, [*WAYS, "validate"]), 3, seed=2))
def test_within_a_limit_a_run_works_or_fails_in_one_line(name: str, way: str, tmp_path: Path) -> None:
    before, environment = LIMITS[name]
    (tmp_path / "scenario.yaml").write_text(QUADRATIC.replace("minibatches: 40", "minibatches: 2000"))
    command = ["validate", "scenario.yaml"]
    if way != "validate":
        command = ["run", "scenario.yaml", "--out", "out", *WAYS[way]]
    # Else numpy says so itself that it has no memory for threads, before the program does.
    environment = {"OPENBLAS_NUM_THREADS": "1", **environment}
    program = start(*command, folder=tmp_path, environment=environment, before=before)
    said = finish(program)
    assert_nobody_is_left(program.pid)
    lines = [line for line in said.err.splitlines() if not line.startswith("warning: ")]
    assert "Traceback" not in said.err
    assert said.status in (0, 1, 2), said
    assert (said.status == 0) == (not lines), said
    assert len(lines) <= (2 if "sweep" in way else 1), said
    manifests = [path.parent for path in (tmp_path / "out").rglob("manifest.json")]
    states = {read_manifest(path)["status"] for path in manifests}
    assert states <= ({"done"} if said.status == 0 else {"done", "failed"})


@pytest.mark.parametrize("kind", ["moved", "removed", "replaced"])
@pytest.mark.parametrize("way", sample(["sim", "inline", "process"], 1))
def test_a_folder_that_moves_fails_its_run_where_it_is_then(way: str, kind: str, tmp_path: Path) -> None:
    text = ENDLESS.replace("seconds: 600", "minibatches: 3000")
    (tmp_path / "scenario.yaml").write_text(text if way == "process" else LONG)
    program = start("run", "scenario.yaml", "--out", "out", "--backend", way, folder=tmp_path)
    while not (tmp_path / "out" / "evals.parquet.part").exists():
        assert program.poll() is None, finish(program)
    if kind == "removed":
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)  # what was written meanwhile
    else:
        (tmp_path / "out").rename(tmp_path / "elsewhere")
    if kind == "replaced":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")
    said = finish(program)
    assert_nobody_is_left(program.pid)
    assert said.status == 1
    (line,) = [line for line in said.err.splitlines() if not line.startswith("warning: ")]
    assert f"{'removed' if kind == 'removed' else f'moved to {tmp_path}/elsewhere'} while the run went on" in line
    if kind != "removed":
        assert read_manifest(tmp_path / "elsewhere")["status"] == "failed"
    if kind == "replaced":
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("command", [["run", "--backend", "sim"], ["run", "--backend", "process"], ["validate"]])
def test_without_a_current_directory_there_is_one_line(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(QUADRATIC)
    (tmp_path / "here").mkdir()
    package = Path(asgd_lab.__file__).parent.parent
    program = start(
        command[0], tmp_path / "scenario.yaml", *command[1:], folder=tmp_path / "here",
        environment={"PYTHONPATH": str(package)}, before=lambda: (tmp_path / "here").rmdir(),
    )  # fmt: skip
    said = finish(program)
    assert said.status == 1
    assert said.err == "the current directory cannot be used: No such file or directory\n"
    assert_nobody_is_left(program.pid)


def test_more_workers_than_open_files_allow_is_wrong_input_for_validate_too(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(ENDLESS.replace("workers: 2", "workers: 20"))
    for command in (["validate", "scenario.yaml"], ["run", "scenario.yaml", "--out", "out"]):
        said = finish(start(*command, folder=tmp_path, before=descriptors(64)))
        assert said.status == 2
        (line,) = said.err.splitlines()
        assert line.startswith("scenario.yaml:4: workers: 20 processes need about 92 open files, and 64 are allowed ")
    assert not (tmp_path / "out").exists()


def test_what_is_refused_is_named_with_its_file_and_other_errors_are_left_alone() -> None:
    assert refusal(PermissionError(13, "Permission denied", "out/logs")) == "out/logs: Permission denied"
    assert refusal(MemoryError()) == "out of memory"
    assert refusal(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes")) is not None
    assert refusal(RuntimeError("a bug")) is None
    assert refusal(ZeroDivisionError("a bug")) is None
