"""A server process that stands still is noticed, killed, and recovers; nobody is blamed for a suspended machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.real import failure_detector
from asgd_lab.backends.real.failure_detector import Heartbeat, ServerFailureDetector
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed
from asgd_lab.record.run import read_summary

from .chaos import members
from .scenarios import TIMING, scenario
from .test_process import nothing_is_left

__all__ = ["nothing_is_left"]  # a fixture that pytest finds here

EMULATED: dict[str, Any] = {
    "task": {**TIMING, "step_s": 0.01},
    "backend": {"name": "process", "device": "emulated"},
    "hardware": {},
    "workers": 2,
    "algorithm": {"name": "asgd", "n_sync": 1},
}


def stop_server(times: int) -> Any:
    """A watch that stops a server so many times: as soon as it has made some versions since the last one."""
    stopped: list[int] = []

    def watch(progress: Progress) -> None:
        if len(stopped) < times and progress.version >= 3 + (stopped[-1] if stopped else 0):
            for process in members("server"):
                process.suspend()
                stopped.append(progress.version)

    return watch


def test_a_server_that_stands_still_is_killed_and_the_run_goes_on(tmp_path: Path) -> None:
    stated = scenario(**EMULATED, budget={"minibatches": 600}, faults={"on_death": "restart", "silent_s": 0.5})
    summary = execute(stated, tmp_path / "run", stop_server(1))
    assert (summary["status"], summary["minibatches"]) == ("done", 600)
    assert summary["faults"]["servers"] == 1
    (line,) = [line for line in summary["faults"]["log"] if line.startswith("server")]
    assert "gave no sign of life for" in line
    assert repeat(stated, tmp_path / "run").difference is None


def test_a_server_that_stands_still_ends_a_run_that_wants_that(tmp_path: Path) -> None:
    stated = scenario(**EMULATED, budget={"seconds": 600.0}, faults={"on_death": "stop", "silent_s": 0.5})
    with pytest.raises(RunFailed, match=r"^server gave no sign of life for \d+ s, and was killed; its log is .*"):
        execute(stated, tmp_path / "run", stop_server(1))
    assert read_summary(tmp_path / "run")["status"] == "failed"
    assert read_summary(tmp_path / "run")["minibatches"] > 0


class Watched:
    """A server and the parent that watches it, on a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, silent_s: float | None) -> None:
        self.now_ns = 10**12
        monkeypatch.setattr(failure_detector, "now_ns", lambda: self.now_ns)
        faults = None if silent_s is None else {"silent_s": silent_s}
        plan: Any = SimpleNamespace(
            transport=SimpleNamespace(words=Words(1)), scenario=scenario(**EMULATED, faults=faults)
        )
        self.server, self.parent = Heartbeat(plan), ServerFailureDetector(plan)

    def passes(self, seconds: float, server: bool = True, parent: bool = True, step_s: float = 0.25) -> bool:
        """So much time, in which each does its part or does not; whether the parent ever blamed the server."""
        until_ns = self.now_ns + int(seconds * 1e9)
        blamed = False
        while self.now_ns < until_ns:
            self.now_ns += int(step_s * 1e9)
            if server:
                self.server.rest(None)
            if parent and self.now_ns >= self.parent.due_ns:
                blamed = blamed or self.parent.silent_ns() is not None
        return blamed


@pytest.fixture(params=[None, 0.3, 1.0, 5.0, 60.0], ids=lambda value: f"silent_s={value}")
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched(monkeypatch, request.param)
    found.server.busy()
    found.now_ns += 10**6
    found.server.served()  # the longest request took a millisecond
    return found


@pytest.mark.parametrize("away_s", [1.0, 2.1, 9.0, 11.0, 31.0, 59.0, 61.0, 100.0, 1000.0, 100000.0])
def test_a_machine_that_was_suspended_blames_nobody(watched: Watched, away_s: float) -> None:
    for step_s in (0.1, 0.25, 0.4):
        assert not watched.passes(5.0, step_s=step_s)
        watched.now_ns += int(away_s * 1e9)  # all of them are away
        assert not watched.passes(5.0, step_s=step_s)
        watched.now_ns += int(away_s * 1e9)
        watched.passes(0.1, server=False, step_s=0.1)  # the parent is back first
        assert not watched.passes(100.0, step_s=step_s)


def test_a_server_is_blamed_in_bounded_time_and_not_before_its_limit(watched: Watched) -> None:
    assert not watched.passes(500.0)
    limit_s = watched.parent._limit() * 1e-9
    assert not watched.passes(limit_s, server=False), "a silence of the limit may be one"
    assert watched.passes(0.25 * limit_s + 4.0, server=False)


@pytest.mark.parametrize("silent_s", [None, 0.5])
def test_a_server_that_starts_or_waits_for_a_disk_has_two_minutes(
    monkeypatch: pytest.MonkeyPatch, silent_s: float | None
) -> None:
    watched = Watched(monkeypatch, silent_s)
    assert not watched.passes(119.0, server=False), "it starts"
    watched.server.busy()
    watched.server.served()
    assert not watched.passes(10.0)
    watched.server.at_disk()
    assert not watched.passes(119.0, server=False)
    assert watched.passes(200.0, server=False)


def test_the_stated_time_of_a_request_and_a_long_request_are_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, None)
    watched.server.busy()
    watched.now_ns += 10**9
    watched.server.served()
    assert not watched.passes(49.0, server=False), "50 times the longest"
    watched = Watched(monkeypatch, 1.0)
    watched.server.busy(300 * 10**9)
    assert not watched.passes(300.0, server=False)
    watched.server.served()
    assert watched.passes(5.0, server=False)
