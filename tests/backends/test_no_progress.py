"""A gate that lets nothing through: the run ends, and says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asgd_lab.backends.replay import repeat
from asgd_lab.errors import RunFailed
from asgd_lab.record.run import read_summary

from .scenarios import TIMING, run, scenario
from .test_process import nothing_is_left

__all__ = ["nothing_is_left"]  # a fixture that pytest finds here

NEVER = {"name": "tests.backends.never:Never", "n_sync": 1}
HASTY = {"name": "tests.backends.never:Hasty", "n_sync": 4}
PLAIN = {"name": "quadratic", "curvature": [1.0], "optimizer": {"name": "SGD", "lr": 0.1}}
ENDS = r"the gate has dropped or stopped 10,0\d\d pushes or leases on end, and no minibatch went into a version"


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_run_whose_pushes_are_all_dropped_fails_in_one_line(tmp_path: Path, backend: str) -> None:
    with pytest.raises(RunFailed, match=ENDS):
        run(tmp_path / "run", task=PLAIN, algorithm=NEVER, workers=2, backend=backend)
    summary = read_summary(tmp_path / "run")
    assert (summary["status"], summary["minibatches"], summary["updates"]) == ("failed", 0, 0)
    assert re.match(ENDS, summary["failure"])
    assert summary["dropped"] >= 10_000
    if backend == "process":
        stated = scenario(task=PLAIN, algorithm=NEVER, workers=2, backend=backend)
        assert repeat(stated, tmp_path / "run").difference is None


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_a_run_whose_fetches_are_never_granted_fails_in_one_line(tmp_path: Path, backend: str) -> None:
    algorithm = {"name": "tests.backends.never:Waiting", "n_sync": 1}
    with pytest.raises(RunFailed, match="wait"):
        run(tmp_path / "run", task=PLAIN, algorithm=algorithm, workers=2, backend=backend)
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "failed"
    assert summary["updates"] >= 3
    if backend == "process":
        assert "the gate grants none of their fetches" in summary["failure"]
        assert repeat(scenario(task=PLAIN, algorithm=algorithm, workers=2, backend=backend), tmp_path / "run").final


def test_a_run_whose_leases_are_all_stopped_fails_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=ENDS):
        run(tmp_path / "run", task=TIMING, algorithm=HASTY, workers=2, backend="sim", hardware={})
    assert read_summary(tmp_path / "run")["updates"] == 0
