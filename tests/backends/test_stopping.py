"""Leases that are stopped on real processes: within one minibatch, counted once, and repeated to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends import event_log
from asgd_lab.backends.event_log import Kind
from asgd_lab.backends.replay import repeat
from asgd_lab.record import tables

from .scenarios import run, scenario
from .test_process import nothing_is_left

__all__ = ["nothing_is_left"]  # a fixture that pytest finds here

STOPPING = {"name": "tests.backends.stopping:Stopping", "n_fetch": 8, "n_push": 8, "patience": 1}
EMULATED = {"name": "process", "device": "emulated"}


def stated(**parts: Any) -> dict[str, Any]:
    hardware = {"compute": {"distribution": "lognormal", "cv": 0.5, "step_s": 0.004}, "speeds": [1.0, 0.3, 0.5]}
    base = {"algorithm": STOPPING, "backend": EMULATED, "workers": 3, "hardware": hardware}
    return {**base, "budget": {"minibatches": 400}, **parts}


def test_a_stopped_worker_ends_within_one_minibatch_and_says_how_many_it_had_taken(tmp_path: Path) -> None:
    summary = run(tmp_path / "run", **stated())
    assert summary["minibatches"] == 400
    log = event_log.read(tmp_path / "run" / event_log.FILE)
    assert summary["wasted_minibatches"] == sum(row.wasted for row in log) > 0
    stops = [row for row in log if row.kind == Kind.STOP]
    told = {(row.worker, row.incarnation, row.stopped): row for row in log if row.stopped}
    assert len(told) > 5
    assert set(told) <= {(row.worker, row.incarnation, row.number) for row in stops}
    took = tables.read(tmp_path / "run", "minibatches")
    for stop in stops:
        answer = told.get((stop.worker, stop.incarnation, stop.number))
        if answer is None:
            continue  # it had taken its last minibatch by then
        ends = took.loc[took["worker"] == stop.worker, "time_s"] * 1e9
        assert ((ends > stop.ended_ns) & (ends <= answer.sent_ns)).sum() <= 2, "the one it was in, and one it may begin"
        assert 0 < answer.wasted < answer.returned <= 8
    verdict = repeat(scenario(**stated()), tmp_path / "run")
    assert verdict.difference is None
    assert verdict.final


AHEAD = {"name": "tests.backends.stopping:StoppingAhead", "n_fetch": 8, "n_push": 3, "depth": 2, "patience": 3}


ALGORITHMS = {"coupled": STOPPING, "uncoupled": STOPPING | {"n_push": 3}, "ahead": AHEAD}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_stops_survive_the_death_of_workers_and_of_the_server(tmp_path: Path, name: str) -> None:
    down = {"name": "server_down", "at_s": 0.15, "for_s": 0.05}
    faults = {"schedule": [down, {"name": "kill", "worker": 1, "at_s": 0.3, "repair_s": 0.05}]}
    parts = stated(faults=faults, budget={"minibatches": 500}, algorithm=ALGORITHMS[name])
    summary = run(tmp_path / "run", **parts)
    assert summary["minibatches"] == 500
    assert (summary["faults"]["workers"], summary["faults"]["servers"]) == (1, 1)
    log = event_log.read(tmp_path / "run" / event_log.FILE)
    assert any(row.stopped for row in log)
    assert repeat(scenario(**parts), tmp_path / "run").difference is None


def test_a_server_wakes_itself_where_nobody_says_a_word(tmp_path: Path) -> None:
    """One worker, whose leases last too long: only the clock can stop them."""
    limited = {"name": "tests.backends.stopping:Limited", "n_fetch": 8, "n_push": 3, "limit_s": 0.045}
    hardware = {"compute": {"step_s": 0.01}}
    parts = stated(algorithm=limited, hardware=hardware, workers=1, budget={"minibatches": 60})
    assert run(tmp_path / "run", **parts)["minibatches"] == 60
    log = event_log.read(tmp_path / "run" / event_log.FILE)
    asked = [row.number for row in log if row.kind == Kind.WAKE_AT and row.number >= 0]
    woken = [row.begun_ns for row in log if row.kind == Kind.WAKE]
    assert len(woken) > 5
    assert all(any(at_ns <= wake_ns for at_ns in asked) for wake_ns in woken), "before it asked to be"
    assert 0 < sum(row.wasted for row in log) < sum(row.returned for row in log)
    assert repeat(scenario(**parts), tmp_path / "run").difference is None
