"""What a scenario's faults do to real processes, and what is done about processes that die or hang by themselves."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from asgd_lab.backends.outcome import Progress, WorkerLook
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary

from .chaos import members
from .scenarios import DIGITS, TIMING, run, scenario
from .test_process import nothing_is_left

__all__ = ["nothing_is_left"]  # a fixture that pytest finds here

EMULATED: dict[str, Any] = {
    "task": {**TIMING, "step_s": 0.02},
    "backend": {"name": "process", "device": "emulated"},
    "hardware": {},
    "workers": 2,
    "algorithm": {"name": "asgd", "n_sync": 1},
}


def trains(out: Path, worker: int) -> Any:
    effects = tables.read(out, "effects")
    return effects[(effects["kind"] == "train") & (effects["worker"] == worker)].sort_values("start_s")


def test_a_worker_killed_on_schedule_is_back_after_its_repair(tmp_path: Path) -> None:
    schedule = [{"name": "kill", "worker": 1, "at_s": 0.5, "repair_s": 1.0}]
    seen: list[list[WorkerLook]] = []
    stated = scenario(**EMULATED, budget={"seconds": 3.0}, faults={"schedule": schedule})
    summary = execute(stated, tmp_path / "run", lambda progress: seen.append(progress.workers))
    assert (summary["faults"]["workers"], summary["faults"]["restarts"]) == (1, 1)
    mine = trains(tmp_path / "run", 1)
    before, after = mine[mine["end_s"] < 0.6], mine[mine["start_s"] > 0.6]
    assert before["end_s"].max() < 0.6
    assert after["start_s"].min() >= 1.5, "not before its repair"
    assert len(after) > 5
    unhurt, hurt = seen[-1]
    assert (unhurt.restarts, hurt.restarts) == (0, 1)
    assert 0 < hurt.minibatches <= len(mine)
    assert unhurt.staleness in (0, 1)
    assert 0.0 <= unhurt.waiting < hurt.waiting
    assert hurt.waiting > 0.3, "of 3 seconds one is its repair"
    assert repeat(scenario(**EMULATED, budget={"seconds": 3.0}), tmp_path / "run").difference is None


def test_a_server_that_is_down_serves_nobody_and_nothing_is_lost(tmp_path: Path) -> None:
    schedule = [{"name": "server_down", "at_s": 0.5, "for_s": 0.7}]
    summary = run(tmp_path / "run", **EMULATED, budget={"minibatches": 150}, faults={"schedule": schedule})
    assert summary["status"] == "done"
    assert summary["minibatches"] == 150
    assert summary["faults"]["servers"] == 1
    effects = tables.read(tmp_path / "run", "effects")
    applies = effects[effects["kind"] == "apply"]
    assert not ((applies["end_s"] > 0.52) & (applies["end_s"] < 1.2)).any()
    assert sorted(applies["version"]) == list(range(1, 151))


@pytest.mark.parametrize("device", ["emulated", "cpu"])
def test_a_slow_worker_takes_longer_while_it_lasts(tmp_path: Path, device: str) -> None:
    """On an emulated device exactly so; on a real one it waits after each minibatch."""
    schedule = [{"name": "slow", "worker": 1, "at_s": 0.4, "until_s": 1.2, "factor": 5.0}]
    parts = {**EMULATED, "budget": {"seconds": 1.6}, "faults": {"schedule": schedule}}
    if device == "cpu":
        parts |= {"task": DIGITS, "backend": "process"}
    run(tmp_path / "run", **parts)
    mine = trains(tmp_path / "run", 1)
    lasts = mine["end_s"] - mine["start_s"]
    during = (mine["start_s"] > 0.5) & (mine["end_s"] < 1.1)
    others = trains(tmp_path / "run", 0)
    theirs = (others["end_s"] - others["start_s"])[(others["start_s"] > 0.5) & (others["end_s"] < 1.1)]
    assert lasts[during].median() > 3 * theirs.median()
    assert lasts[mine["start_s"] > 1.25].median() < 2 * theirs.median()


def test_a_stopped_worker_goes_on_where_it_was(tmp_path: Path) -> None:
    schedule = [{"name": "stop", "worker": 1, "at_s": 0.5, "until_s": 1.1}]
    summary = run(tmp_path / "run", **EMULATED, budget={"seconds": 1.6}, faults={"schedule": schedule})
    assert summary["faults"] == summary["faults"] | {"workers": 0, "silences": 0}
    mine = trains(tmp_path / "run", 1)
    assert not ((mine["start_s"] > 0.55) & (mine["end_s"] < 1.1)).any()
    assert (mine["start_s"] > 1.1).sum() > 5
    rounds = mine["round"].tolist()
    assert rounds == list(range(1, len(rounds) + 1)), "nothing was lost"


def test_random_crashes_come_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    faults = {"mean_time_between_failures_s": 0.8, "mean_time_to_repair_s": 0.1}
    summary = run(tmp_path / "run", **EMULATED, budget={"seconds": 5.0}, faults=faults)
    assert summary["faults"]["workers"] >= 2
    assert summary["faults"]["restarts"] >= summary["faults"]["workers"] - 2
    assert repeat(scenario(**EMULATED, budget={"seconds": 5.0}), tmp_path / "run").difference is None


def test_a_run_goes_on_without_a_worker_that_died(tmp_path: Path) -> None:
    schedule = [{"name": "kill", "worker": 1, "at_s": 0.3}]
    faults = {"schedule": schedule, "on_death": "continue"}
    summary = run(tmp_path / "run", **EMULATED, budget={"minibatches": 60}, faults=faults)
    assert summary["status"] == "done"
    assert summary["minibatches"] == 60
    assert trains(tmp_path / "run", 1)["end_s"].max() < 0.4


def test_a_run_whose_last_worker_died_has_failed(tmp_path: Path) -> None:
    schedule = [{"name": "kill", "worker": worker, "at_s": 0.3} for worker in (0, 1)]
    with pytest.raises(RunFailed, match=r"no worker is left: worker \d was killed by SIGKILL"):
        run(tmp_path / "run", **EMULATED, budget={"minibatches": 600},
            faults={"schedule": schedule, "on_death": "continue"})  # fmt: skip
    assert read_summary(tmp_path / "run")["minibatches"] > 0


def stop_once(who: str, then: Any = None) -> Any:
    """A watch that stops a process when the first versions are there, and does something a second later."""
    stopped: list[tuple[float, psutil.Process]] = []

    def watch(progress: Progress) -> None:
        if progress.version >= 3 and not stopped:
            (process,) = members(who)
            process.suspend()
            stopped.append((time.monotonic(), process))
        if len(stopped) == 1 and then is not None and time.monotonic() - stopped[0][0] > 1.5:
            then(stopped[0][1])
            stopped.append(stopped[0])

    return watch


def test_a_worker_that_gives_no_sign_of_life_ends_a_run_that_wants_that(tmp_path: Path) -> None:
    stated = scenario(**EMULATED, budget={"seconds": 60.0}, faults={"on_death": "stop", "silent_s": 0.5})
    with pytest.raises(RunFailed, match=r"worker 1 gives no sign of life after \d+ minibatches; its log is"):
        execute(stated, tmp_path / "run", stop_once("worker-1"))


def test_a_worker_that_wakes_is_told_that_it_was_given_up_and_begins_anew(tmp_path: Path) -> None:
    stated = scenario(**EMULATED, budget={"seconds": 5.0}, faults={"on_death": "continue", "silent_s": 0.5})
    summary = execute(stated, tmp_path / "run", stop_once("worker-1", lambda process: process.resume()))
    assert summary["faults"] == summary["faults"] | {"silences": 1, "awakenings": 1, "workers": 0}
    assert trains(tmp_path / "run", 1)["end_s"].max() > 4.0
    assert repeat(stated, tmp_path / "run").difference is None


def test_a_worker_that_does_not_wake_is_replaced(tmp_path: Path) -> None:
    stated = scenario(**EMULATED, budget={"seconds": 6.0}, faults={"on_death": "restart", "silent_s": 0.4})
    summary = execute(stated, tmp_path / "run", stop_once("worker-1"))
    assert summary["faults"] == summary["faults"] | {"silences": 1, "awakenings": 0, "restarts": 1}
    assert trains(tmp_path / "run", 1)["end_s"].max() > 5.0


def exploding(num_classes: int) -> Any:
    """A model whose loss is no number from its tenth minibatch on."""

    class Exploding(torch.nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Exploding.calls += self.training
            return super().forward(x.flatten(1)) * (float("nan") if 12 > Exploding.calls >= 10 else 1.0)

    return Exploding(64, num_classes)


@pytest.mark.parametrize("policy", ["ignore", "restart", "stop"])
def test_a_loss_that_is_no_number_is_ignored_thrown_away_or_the_end(tmp_path: Path, policy: str) -> None:
    task = {**DIGITS, "model": "tests.backends.test_process_faults:exploding"}
    parts: dict[str, Any] = {"task": task, "backend": "process", "algorithm": {"name": "asgd", "n_sync": 3},
                             "budget": {"minibatches": 60}, "faults": {"on_not_finite": policy}}  # fmt: skip
    if policy == "stop":
        with pytest.raises(RunFailed, match=r"worker 0 failed: NotFinite: the loss of minibatch \d+ is nan"):
            run(tmp_path / "run", **parts)
        return
    summary = run(tmp_path / "run", **parts)
    assert summary["minibatches"] == 60
    assert (summary["final"]["test_loss"] < 9) == (policy == "restart")


def hopeless(num_classes: int) -> Any:
    """A model whose loss is never a number."""

    class Hopeless(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.flatten(1)) * float("inf")

    return Hopeless(64, num_classes)


def test_a_worker_whose_loss_is_never_a_number_is_not_started_for_ever(tmp_path: Path) -> None:
    task = {**DIGITS, "model": "tests.backends.test_process_faults:hopeless"}
    with pytest.raises(RunFailed, match=r"NotFinite: the loss of minibatch 0 is nan"):
        run(tmp_path / "run", task=task, backend="process", faults={"on_not_finite": "restart"})


def test_a_disk_without_room_ends_the_run_in_one_line_and_keeps_what_was_recorded(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: a record that grows beyond it cannot be written."""
    stated = scenario(
        **EMULATED | {"task": {**TIMING, "step_s": 1e-5}}, budget={"seconds": 60.0}, faults={"on_death": "restart"}
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(progress: Progress) -> None:
        if progress.version >= 3:
            for kind in ("worker-0", "worker-1", "server"):
                for process in members(kind):
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 20, limits[1]))

    with pytest.raises(RunFailed, match=r"failed: .*OSError: \[Errno (27|28)\].*; its log is"):
        execute(stated, tmp_path / "run", limit)
    summary = read_summary(tmp_path / "run")
    assert summary["minibatches"] > 100
    assert len(tables.read(tmp_path / "run", "effects")) > 100


def test_too_little_memory_is_said_before_anything_starts(tmp_path: Path) -> None:
    task = {**DIGITS, "model": "mlp", "model_options": {"hidden": [4_000_000]}}
    with pytest.raises(ScenarioError, match=r"need .* GB for their vectors, and .* GB are free; use fewer"):
        run(tmp_path / "run", task=task, backend="process", workers=200)
    assert not (tmp_path / "run").exists()
