"""How a run ends that does not end well: the status, the one line, what is kept, and that nothing else is left."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asgd_lab import interrupts
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.errors import RunFailed
from asgd_lab.record import tables
from asgd_lab.record.run import RunDirectory, read_summary
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from tests.cli.harness import (
    ENDLESS,
    QUADRATIC,
    asgd_lab,
    assert_nobody_is_left,
    await_end,
    await_line,
    crew,
    finish,
    start,
)
from tests.whole import sample

SHARED = Path("/dev/shm")


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("scenario.yaml")
    path.write_text(QUADRATIC + "sweep: {seed: [1, 2, 3]}\n")
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    path = tmp_path / "endless.yaml"
    path.write_text(ENDLESS)
    return path


def outcome(scenario: Scenario, **how: str) -> Outcome:
    statistics = Statistics(scenario.workers)
    return Outcome(statistics, 10**9, 1, np.zeros(2, np.float32), {}, {}, **how)  # type: ignore[arg-type]


def replace_sim(monkeypatch: pytest.MonkeyPatch, second: Callable[..., Outcome]) -> None:
    """A sim backend of which the run with seed 2 goes otherwise."""

    def run(scenario: Scenario, record: RunDirectory, watch: Watch | None) -> Outcome:
        return second(scenario, record, watch) if scenario.seed == 2 else outcome(scenario)

    monkeypatch.setattr("asgd_lab.backends.sim.run", run)


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_a_failed_run_ends_its_sweep_with_status_1_and_the_others_go_on(
    how: str, scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = "worker 1 failed: it tripped; its log is out/log"

    def fails(scenario: Scenario, record: RunDirectory, watch: Watch | None) -> Outcome:
        if how == "raised":
            raise RunFailed(failure)
        return outcome(scenario, status="failed", failure=failure)

    replace_sim(monkeypatch, fails)
    said = asgd_lab("run", scenario, "--out", "out", "--jobs", "1")
    assert (said.status, said.err) == (1, f"seed=2: {failure}; what was recorded is in out/seed=2\n")
    assert f"[2/3] seed=2: failed: {failure}\n" in said.out
    states = {path.name: read_summary(path)["status"] for path in Path("out").iterdir() if path.is_dir()}
    assert states == {"seed=1": "done", "seed=2": "failed", "seed=3": "done"}


@pytest.mark.parametrize("how", ["raised", "returned"])
def test_an_interrupted_run_stops_the_sweep_with_status_130_and_says_where_its_record_is(
    how: str, scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_interrupted(scenario: Scenario, record: RunDirectory, watch: Watch | None) -> Outcome:
        if how == "raised":
            raise KeyboardInterrupt
        return outcome(scenario, status="interrupted")

    replace_sim(monkeypatch, is_interrupted)
    said = asgd_lab("run", scenario, "--out", "out", "--jobs", "1")
    assert said.status == 130
    assert said.err == "interrupted; what was recorded is in out, and --resume goes on with it\n"
    assert sorted(path.name for path in Path("out").iterdir()) == ["seed=1", "seed=2", "sweep.json"]
    assert read_summary("out/seed=2")["status"] == "interrupted"


def test_a_bug_is_not_dressed_up_as_anything_else(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_wrong(scenario: Scenario, record: RunDirectory, watch: Watch | None) -> Outcome:
        raise ZeroDivisionError("a bug")

    replace_sim(monkeypatch, is_wrong)
    with pytest.raises(ZeroDivisionError):
        asgd_lab("run", scenario, "--out", "out", "--jobs", "1")


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_ends_a_real_run_with_status_130_and_keeps_its_rows(
    endless: Path, tmp_path: Path, number: signal.Signals
) -> None:
    shared = set(os.listdir(SHARED))
    program = start("run", endless, "--out", "out", folder=tmp_path)
    await_line(program, "minibatches/s")
    assert len(crew(program)) == 3
    os.killpg(program.pid, number)  # as a terminal and Slurm do: every process of the run hears it
    said = finish(program)
    assert (said.status, said.err) == (130, "interrupted; what was recorded is in out\n")
    out = tmp_path / "out"
    assert read_summary(out)["status"] == "interrupted"
    assert read_summary(out)["minibatches"] > 0
    effects = tables.read(out, "effects")
    assert set(effects["kind"]) >= {"fetch", "train", "push", "apply"}
    assert set(effects["worker"]) == {-1, 0, 1}
    assert_nobody_is_left(program.pid)
    assert set(os.listdir(SHARED)) <= shared


@pytest.mark.parametrize(("jobs", "number"), sample(itertools.product([1, 2], interrupts.SIGNALS), 3, seed=1))
def test_a_signal_ends_a_simulated_sweep_with_status_130(
    endless: Path, tmp_path: Path, number: signal.Signals, jobs: int
) -> None:
    sweep = ["--set", "backend=sim", "--set", "budget={seconds: 1000000}", "--set", "sweep.seed=[1, 2]"]
    program = start("run", endless, "--out", "out", "--jobs", str(jobs), *sweep, folder=tmp_path)
    await_line(program, "running: " if jobs == 2 else "minibatches/s")
    os.killpg(program.pid, number)
    said = finish(program)
    assert said.status == 130
    assert said.err.startswith("interrupted; what was recorded is in out")
    ended = [read_summary(path)["status"] for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert ended == ["interrupted"] * jobs
    assert_nobody_is_left(program.pid)


@pytest.mark.parametrize("whose", ["the program's", "the program's, twice", "a simulating process's"])
def test_a_limit_of_processor_time_ends_a_run_as_a_signal_does(endless: Path, tmp_path: Path, whose: str) -> None:
    """The kernel sends SIGXCPU at the soft limit of each process, and again after each further second."""
    apart = whose == "a simulating process's"
    sweep = ["--set", "backend=sim", "--set", "budget={seconds: 1000000}", "--set", "sweep.seed=[1, 2]"]
    program = start("run", endless, "--out", "out", "--jobs", "2" if apart else "1", *sweep, folder=tmp_path)
    await_line(program, "running: " if apart else "minibatches/s")
    number = crew(program)[0].pid if apart else program.pid
    for _ in range(2 if whose.endswith("twice") else 1):
        os.kill(number, signal.SIGXCPU)
    said = finish(program)
    assert said.status == 130
    cause = "the limit of processor time is reached (ulimit -t)"
    assert said.err.startswith(f"interrupted: {cause}; what was recorded is in out, and --resume")
    assert said.err.count("\n") == 1
    ended = [read_summary(path)["status"] for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert ended == ["interrupted"] * (2 if apart else 1)
    assert_nobody_is_left(program.pid)


@pytest.mark.parametrize("number", [*interrupts.SIGNALS, signal.SIGXCPU])
@pytest.mark.parametrize("command", ["validate", "run", "replay"])
def test_a_signal_while_python_imports_ends_the_program_with_one_line(
    endless: Path, tmp_path: Path, number: signal.Signals, command: str
) -> None:
    package = tmp_path / "first" / ("pydantic" if command == "validate" else "torch")  # which that command imports
    package.mkdir(parents=True)
    waits = f"import signal\nopen({str(tmp_path / 'fifo')!r}, 'w').close()\nwhile True: signal.pause()\n"
    (package / "__init__.py").write_text(waits)
    os.mkfifo(tmp_path / "fifo")
    endless.write_text(ENDLESS.replace("{name: process, device: emulated}", "sim"))  # no fork server, which imports too
    program = start(command, endless, folder=tmp_path, environment={"PYTHONPATH": str(tmp_path / "first")})
    (tmp_path / "fifo").open().close()  # until it imports
    os.killpg(program.pid, number)
    said = finish(program)
    limit = "interrupted: the limit of processor time is reached (ulimit -t)\n"
    assert (said.status, said.err) in ((130, "interrupted\n"), (130, limit if number == signal.SIGXCPU else None))
    assert_nobody_is_left(program.pid)


def test_a_signal_that_is_ignored_from_the_start_stays_ignored(endless: Path, tmp_path: Path) -> None:
    command = ["nohup", sys.executable, "-m", "asgd_lab", "run", str(endless), "--out", "out"]
    with subprocess.Popen(
        [*command, "--set", "budget={seconds: 2}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path, start_new_session=True,
    ) as program:  # fmt: skip
        await_line(program, "minibatches/s")
        os.killpg(program.pid, signal.SIGHUP)
        assert finish(program).status == 0
    assert_nobody_is_left(program.pid)


def test_a_second_ctrl_c_does_not_wait_for_a_worker_that_hangs(endless: Path, tmp_path: Path) -> None:
    program = start("run", endless, "--out", "out", folder=tmp_path)
    await_line(program, "minibatches/s")
    worker_0, worker_1, _ = crew(program)
    worker_1.suspend()
    os.killpg(program.pid, signal.SIGINT)
    await_end(worker_0)  # the first one has been heard, and all wait for worker 1
    os.killpg(program.pid, signal.SIGINT)
    said = finish(program)
    assert (said.status, said.err) == (130, "interrupted; what was recorded is in out\n")
    assert read_summary(tmp_path / "out")["status"] == "interrupted"
    assert_nobody_is_left(program.pid)


def test_a_killed_worker_ends_a_real_run_with_status_1_and_its_name(endless: Path, tmp_path: Path) -> None:
    shared = set(os.listdir(SHARED))
    program = start("run", endless, "--out", "out", folder=tmp_path)
    await_line(program, "minibatches/s")
    crew(program)[1].kill()
    said = finish(program)
    assert said.status == 1
    (line,) = said.err.splitlines()
    assert line.startswith("worker 1 was killed by SIGKILL after ")
    assert "its log is out/logs/worker-1.log" in line
    assert line.endswith("what was recorded is in out")
    out = tmp_path / "out"
    assert read_summary(out)["status"] == "failed"
    assert len(tables.read(out, "effects"))
    assert_nobody_is_left(program.pid)
    assert set(os.listdir(SHARED)) <= shared
