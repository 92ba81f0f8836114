"""Staleness as a distance: what the server moved between a fetch and the application."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgd_lab.backends.run import execute
from asgd_lab.record import tables

from .scenarios import QUADRATIC, run, scenario
from .test_resume import interrupted


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_a_distance_is_there_for_every_update_and_is_none_where_nobody_else_moved_anything(
    tmp_path: Path, backend: str
) -> None:
    chosen = {"name": backend, "distances": True}
    for workers, algorithm in ((1, "asgd"), (3, "sync_sgd"), (3, "asgd")):
        out = tmp_path / f"{algorithm}-{workers}"
        summary = run(out, backend=chosen, workers=workers, algorithm={"name": algorithm, "n_sync": 2},
                      budget={"minibatches": 120})  # fmt: skip
        found = tables.read(out, "distances")
        assert len(found) == summary["pushes"]
        pushes = tables.read(out, "effects").query("kind == 'push' and version > 0")
        recorded = pushes.groupby("worker")["staleness"].apply(list).to_dict()
        assert found.sort_values("time_s").groupby("worker")["staleness"].apply(list).to_dict() == recorded
        assert ((found["distance"] > 0) == (found["staleness"] > 0)).all()
        assert (found["staleness"] > 0).any() == (algorithm == "asgd" and workers > 1)


def test_a_distance_is_that_of_the_two_versions(tmp_path: Path) -> None:
    """Two workers in turn, one minibatch a round, on a bowl of curvature 1 from 1: each update is made one version ago.

    w0 = 1; both work on version 0, and add a half of -lr * w: the second finds the center lr/2 away.
    """
    task = {**QUADRATIC, "curvature": [1.0], "noise": 0.0, "optimizer": {"name": "SGD", "lr": 0.5}}
    run(tmp_path / "run", task=task, workers=2, algorithm={"name": "asgd", "n_sync": 1}, budget={"updates": 2},
        backend={"name": "sim", "distances": True}, hardware={"compute": {"step_s": 1.0}})  # fmt: skip
    found = tables.read(tmp_path / "run", "distances")
    assert found["distance"].tolist() == pytest.approx([0.0, 0.25])


def test_no_distance_is_missing_or_there_twice_after_the_death_of_servers_and_of_the_run(tmp_path: Path) -> None:
    stated = scenario(
        backend={"name": "process", "distances": True, "checkpoint": {"every_updates": 30}}, workers=3,
        budget={"minibatches": 9000}, algorithm={"name": "asgd", "n_sync": 2},
        faults={"on_death": "restart", "schedule": [{"name": "server_down", "at_s": at, "for_s": 0.1}
                                                    for at in (0.05, 0.3)]},
    )  # fmt: skip
    interrupted(stated, tmp_path / "run", 100)
    summary = execute(stated, tmp_path / "run", resume=True)
    assert summary["faults"]["servers"] >= 1
    found = tables.read(tmp_path / "run", "distances")
    assert found["version"].tolist() == list(range(1, summary["updates"] + 1))
    assert ((found["distance"] > 0) == (found["staleness"] > 0)).all()


def test_no_table_is_written_where_nobody_asked(tmp_path: Path) -> None:
    run(tmp_path / "run", backend="process")
    assert not (tmp_path / "run" / "distances.parquet").exists()
