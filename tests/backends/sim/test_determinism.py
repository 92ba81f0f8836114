"""The same scenario and seed give the same bytes, in whichever process and whatever else happens there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.run import execute
from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Document, Scenario

FILES = ("effects.parquet", "minibatches.parquet", "evals.parquet", "summary.json", "trace.json")
EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "seed": 17,
    "task": {
        "name": "classification",
        "dataset": "digits",
        "model": "mlp",
        "batch_size": 8,
        "train_samples": 128,
        "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
    },
    "algorithm": {"name": "downpour", "n_fetch": 2, "n_push": 3, "depth": 2},
    "workers": 6,
    "budget": {"minibatches": 150},
    "evaluate": {"every_minibatches": 40, "parameters": ["server", "replicas"]},
    "backend": "sim",
    "hardware": {
        "compute": {"distribution": "lognormal", "cv": 0.5, "step_s": 0.01},
        "speeds": [1.0, 0.7],
        "slow_phases": {"every_s": 0.2, "length_s": 0.1, "factor": 3.0},
        "host": {"workers": 2, "cores": 2, "bandwidth_bytes_per_s": 2e7},
        "staging": {"latency_s": 1e-4, "to_host_bytes_per_s": 1e8, "to_device_bytes_per_s": 1e8},
        "client": {"push_s": 1e-3, "fetch_s": 1e-3},
        "link": {"latency_s": 1e-3, "bandwidth_bytes_per_s": 4e7, "shared": True, "flow_bytes_per_s": 3e7},
        "groups": [{"name": "far", "workers": 2, "speed": 0.8}, {"name": "near"}],
        "links": [{"group": "far", "latency_s": 5e-3, "bandwidth_bytes_per_s": 5e6, "shared": True}],
        "server": {"push_s": 1e-3, "fetch_s": 5e-4, "distribution": "exponential", "bandwidth_bytes_per_s": 3e7},
    },
    "faults": {"mean_time_between_failures_s": 0.4, "mean_time_to_repair_s": 0.05, "detect_s": 0.02},
}


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in FILES}


def test_fresh_processes_with_other_hash_seeds_write_the_same_bytes(tmp_path: Path) -> None:
    """Python salts the hashes of strings, and so the order of sets of them; this process's own salt is a third."""
    scenario = Scenario.model_validate(EVERYTHING)
    file = tmp_path / "scenario.yaml"
    file.write_text(Document.dump(scenario), encoding="utf-8")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "asgd_lab", "run", str(file), "--out", str(tmp_path / salt)],
            env={**os.environ, "PYTHONHASHSEED": salt},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for salt in ("0", "1")
    ]
    execute(scenario, tmp_path / "here")
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    found = [files(tmp_path / name) for name in ("0", "1", "here")]
    for name in FILES:
        assert found[0][name] == found[1][name] == found[2][name], name
    summary = read_summary(tmp_path / "here")
    assert summary["faults"]["crashes"] > 3, "everything has happened"
    assert summary["minibatches"] == 150
    assert len(tables.read(tmp_path / "here", "evals")) > 10


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": {"name": "asgd", "n_sync": 3}},
        {"algorithm": {"name": "sync_sgd", "n_sync": 2}},
        {"algorithm": {"name": "ssp", "n_sync": 1, "bound": 2}},
        {"task": {"name": "timing", "size_bytes": 10**5}, "evaluate": None},
    ],
    ids=["asgd", "sync_sgd", "ssp", "timing"],
)
def test_the_same_process_writes_the_same_bytes_twice_and_others_for_another_seed(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    scenario = Scenario.model_validate(EVERYTHING | change)
    other = scenario.model_copy(update={"seed": 18})
    for name, stated in (("a", scenario), ("other", other), ("b", scenario)):
        execute(stated, tmp_path / name)
    first, again, different = (files(tmp_path / name) for name in ("a", "b", "other"))
    assert first == again
    assert first["effects.parquet"] != different["effects.parquet"]


@pytest.mark.parametrize("name", ["asgd", "downpour", "sync_sgd"])
def test_batched_numerics_change_no_time_and_no_order_and_hardly_a_loss(tmp_path: Path, name: str) -> None:
    """The same rows to the byte; losses to the rounding of float32, which training makes somewhat larger."""
    algorithm = EVERYTHING["algorithm"] if name == "downpour" else {"name": name, "n_sync": 2}
    more = {"algorithm": algorithm, "budget": {"minibatches": 60}}
    for run, numerics in (("one", "sequential"), ("many", "batched"), ("again", "batched")):
        backend = {"name": "sim", "numerics": numerics}
        execute(Scenario.model_validate(EVERYTHING | more | {"backend": backend}), tmp_path / run)
    one, many, again = (files(tmp_path / run) for run in ("one", "many", "again"))
    assert many == again
    assert many["effects.parquet"] == one["effects.parquet"]
    (one_by_one, together) = (tables.read(tmp_path / run, "minibatches") for run in ("one", "many"))
    keys = ["worker", "step", "time_s"]
    assert together[keys].equals(one_by_one[keys])
    assert together["loss"].to_numpy() == pytest.approx(one_by_one["loss"].to_numpy(), rel=1e-3)
    (one_by_one, together) = (tables.read(tmp_path / run, "evals") for run in ("one", "many"))
    keys = ["time_s", "version", "minibatches", "parameters", "split", "metric"]
    assert together[keys].equals(one_by_one[keys])
    assert read_summary(tmp_path / "many")["numerics"]["mode"] == "batched"
