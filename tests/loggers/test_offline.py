"""Weights & Biases and MLflow without a network: what their own files hold after a run."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asgd_lab
from tests.cli.harness import start

SCENARIO = """\
name: pair
task: {name: quadratic, curvature: [1.0, 4.0], noise: 0.1, optimizer: {name: SGD, lr: 0.05}}
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {minibatches: 40}
backend: sim
evaluate: {every_minibatches: 20}
hardware: {compute: {step_s: 0.01}}
log: [wandb, mlflow]
sweep: {workers: [2]}
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a sweep was run, in a process of its own."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "pair.yaml").write_text(SCENARIO)
    program = start("run", "pair.yaml", "--out", "all", folder=folder, environment={"WANDB_MODE": "offline"})
    _, err = program.communicate()
    assert program.returncode == 0, err
    assert "warning: " not in err
    return folder


def test_mlflow_has_a_run_of_each_point_with_its_curves_and_numbers(logged: Path) -> None:
    with sqlite3.connect(logged / "mlflow.db") as store:
        runs = store.execute("select run_uuid, name, status from runs order by name").fetchall()
        assert [(name, status) for _, name, status in runs] == [("workers=2", "FINISHED")]
        (experiments,) = store.execute("select count(*) from experiments where name = 'pair'").fetchone()
        assert experiments == 1
        run = asgd_lab.Run.open(logged / "all" / "workers=2")
        of = (runs[0][0],)
        losses = store.execute(
            "select step, value from metrics where run_uuid = ? and key = 'loss/mean' order by step", of
        ).fetchall()
        assert [step for step, _ in losses] == list(range(2, 41, 2))
        assert losses[-1][1] == pytest.approx(run.minibatches.sort_values("time_s")["loss"].tail(2).mean())
        params = dict(store.execute("select key, value from params where run_uuid = ?", of).fetchall())
        assert (params["workers"], params["task.optimizer.lr"], params["algorithm.n_sync"]) == ("2", "0.05", "2")
        tags = dict(store.execute("select key, value from tags where run_uuid = ?", of).fetchall())
        assert (tags["sweep"], tags["run_dir"]) == ("pair", str(run.path))
        final = dict(store.execute("select key, value from latest_metrics where run_uuid = ?", of).fetchall())
        assert final["final/makespan_s"] == pytest.approx(run.summary["makespan_s"])
    assert runs[0][0] in run.summary["logs"]["mlflow"]


def test_weights_and_biases_has_a_run_of_each_point_in_one_group(logged: Path) -> None:
    (folder,) = (logged / "wandb").glob("offline-run-*")
    found = offline_run(folder)
    assert (found["name"], found["group"], found["exit"]) == ("workers=2", "pair", 0)
    assert (found["config"]["workers"], found["config"]["algorithm.n_sync"]) == (2, 2)
    means = [row for row in found["history"] if "loss/mean" in row]
    assert [row["minibatches"] for row in means] == list(range(2, 41, 2))
    assert {"workers/loss/0", "workers/loss/1", "staleness"} <= {tag for row in found["history"] for tag in row}
    assert found["summary"]["final/minibatches"] == 40
    assert asgd_lab.Run.open(logged / "all" / "workers=2").summary["logs"]["wandb"] == str(folder)


def offline_run(folder: Path) -> dict[str, Any]:
    """What the tool's own file says of a run: the records that `wandb sync` would send."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    found: dict[str, Any] = {"history": [], "config": {}, "summary": {}}
    for data in records(path.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"name": record.run.display_name, "group": record.run.run_group}
            found["config"] |= items(record.run.config.update)
        elif kind == "history":
            found["history"].append(items(record.history.item))
        elif kind == "summary":
            found["summary"] |= items(record.summary.update)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def records(content: bytes) -> Iterator[bytes]:
    """LevelDB's log: in blocks of 32 KiB, pieces of a record behind a checksum, their length and their kind."""
    at, record = 7, b""  # behind the tool's own header
    while at < len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def items(pairs: Any) -> dict[str, Any]:
    return {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in pairs}
