"""Who ends with whom: nothing of a run outlives its program, and a fork server that is killed is called by its name."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from asgd_lab.backends.real import processes
from asgd_lab.backends.real.orphans import SharedHold
from asgd_lab.errors import ScenarioError
from asgd_lab.record import directory_locks
from asgd_lab.record.run import read_summary
from tests.cli.harness import ENDLESS, asgd_lab, assert_nobody_is_left, await_line, crew, finish, start


def begun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A real run under way with the fork server that Python starts; its temporary folder is its own."""
    (folder / "endless.yaml").write_text(ENDLESS)
    (folder / "temporary").mkdir()
    program = start(
        "run", "endless.yaml", "--out", "out", *arguments, folder=folder, cold=True,
        environment={"TMPDIR": str(folder / "temporary"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch")},
    )  # fmt: skip
    await_line(program, "minibatches/s")
    return program


def fork_server(program: subprocess.Popen[str]) -> psutil.Process:
    (found,) = [each for each in psutil.Process(program.pid).children() if "forkserver" in " ".join(each.cmdline())]
    return found


def test_processes_that_are_stopped_end_with_their_program(tmp_path: Path) -> None:
    """A worker, the server and the fork server, which also could not end any of the others."""
    shared = set(os.listdir("/dev/shm"))
    program = begun(tmp_path)
    worker, _, server = crew(program)
    for process in (worker, server, fork_server(program)):
        process.suspend()
    program.kill()
    program.communicate()
    assert_nobody_is_left(program.pid)
    assert os.listdir(tmp_path / "temporary") == []
    assert set(os.listdir("/dev/shm")) <= shared


def test_a_fork_server_that_is_killed_is_named_and_the_run_has_failed(tmp_path: Path) -> None:
    program = begun(tmp_path)
    fork_server(program).kill()
    said = finish(program)
    assert said.status == 1
    assert re.fullmatch(
        "the fork server, which had started all processes, was killed by SIGKILL, and they ended with it; "
        "what was recorded is in out\n", said.err,
    )  # fmt: skip
    assert read_summary(tmp_path / "out")["minibatches"] > 0
    assert_nobody_is_left(program.pid)
    assert os.listdir(tmp_path / "temporary") == []


def test_a_run_that_restarts_who_dies_survives_its_fork_server(tmp_path: Path) -> None:
    program = begun(tmp_path, "--set", "faults={on_death: restart}", "--set", "budget={minibatches: 5000}")
    fork_server(program).kill()
    assert finish(program).status == 0
    summary = read_summary(tmp_path / "out")
    assert (summary["status"], summary["minibatches"]) == ("done", 5000)
    assert (summary["faults"]["servers"], summary["faults"]["workers"]) == (1, 2)
    assert asgd_lab("replay", tmp_path / "out").status == 0
    assert_nobody_is_left(program.pid)


def wait(line: Connection, hold: SharedHold) -> None:
    """A process of a run, as long as nobody says a word."""
    line.send(hold is not None)
    line.poll(None)


def test_a_directory_is_held_as_long_as_any_process_of_the_run_lives(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    with directory_locks.made_and_locked(tmp_path, "--out"):
        process = processes.start("waits", wait, (theirs, SharedHold(tmp_path)))
    theirs.close()
    assert ours.recv()
    with pytest.raises(ScenarioError, match="is in use"), directory_locks.made_and_locked(tmp_path, "--out"):
        pass
    ours.close()
    process.join()
    with directory_locks.made_and_locked(tmp_path, "--out"):
        pass
