"""Compare: what is predicted with, what is measured, and the table and figure that come of it."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from asgd_lab.app.cli import app
from asgd_lab.backends.run import execute
from asgd_lab.hardware.fit import Fitted, fit
from asgd_lab.prediction import Calibration, knee, predicted
from asgd_lab.record import tables
from asgd_lab.record.machine import usable_cores
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Document
from asgd_lab.scenario.backends import Backend

SCENARIO = """
name: tiny
task: {name: timing, size_bytes: 1000, step_s: 0.002}
algorithm: {name: asgd, n_sync: 5}
workers: 1
budget: {seconds: 0.3}
backend: {name: process, device: emulated}
hardware: {server: {push_s: 0.004}}
sweep: {algorithm.n_sync: [1, 5], workers: [1, 4]}
"""


@pytest.fixture
def document(tmp_path: Path) -> Document:
    path = tmp_path / "tiny.yaml"
    path.write_text(SCENARIO)
    return Document.read(path)


CALIBRATION = Calibration(
    Fitted(
        client_push_s=0.001,
        client_fetch_s=0.002,
        cold_s=0.0,
        server_push_s=0.004,
        server_fetch_s=0.001,
        latency_s=0.0005,
        step_times_s=np.array([0.009, 0.011]),
    ),
    size_bytes=1000,
    step_s=0.010,
)


def test_the_prediction_is_the_same_protocol_at_the_calibrated_costs(document: Document) -> None:
    measured = document.points()[3].scenario
    simulated = predicted(measured, CALIBRATION)
    assert simulated.algorithm == measured.algorithm
    assert (simulated.workers, simulated.budget, simulated.seed) == (4, measured.budget, measured.seed)
    assert simulated.backend.name == "sim"
    assert simulated.hardware.compute == measured.hardware.compute, "an emulated device takes the stated times"
    assert simulated.hardware.server.push_s == 0.004
    assert simulated.hardware.cores is None, "an emulated device takes no core"


def test_a_real_device_is_predicted_with_the_times_of_its_minibatches(document: Document) -> None:
    measured = document.points()[0].scenario
    real = predicted(measured.model_copy(update={"backend": Backend(name="process", device="cpu")}), CALIBRATION)
    assert real.hardware.compute.samples_s == [0.009, 0.011]
    assert real.hardware.cores == usable_cores()


STATED = {
    "staging.to_host_bytes_per_s": 5e8,
    "staging.to_device_bytes_per_s": 5e8,
    "staging.latency_s": 0.004,
    "client.push_s": 0.004,
    "client.fetch_s": 0.004,
    "link.latency_s": 0.004,
    "link.bandwidth_bytes_per_s": 5e8,
    "link.up_bytes_per_s": 5e8,
    "link.down_bytes_per_s": 5e8,
    "server.push_s": 0.004,
    "server.fetch_s": 0.004,
    "server.push_bytes_per_s": 5e8,
    "server.fetch_bytes_per_s": 5e8,
}


@pytest.mark.parametrize("key", STATED)
def test_a_cost_that_calibration_has_measured_is_not_added_again(document: Document, tmp_path: Path, key: str) -> None:
    large = {"task.size_bytes": 10_000_000, "task.step_s": 0.01, f"hardware.{key}": STATED[key], "sweep": {}}
    alone = document.points({**large, "budget": {"minibatches": 500}})[0].scenario
    simulated = alone.model_copy(update={"backend": Backend(name="sim", device="emulated")})
    stated = execute(simulated, tmp_path / "stated")
    fitted = fit([(tables.read(tmp_path / "stated", "effects"), tables.read(tmp_path / "stated", "minibatches"))])
    again = execute(predicted(alone, Calibration(fitted, 10_000_000, 0.01)), tmp_path / "predicted")
    assert again["minibatches_per_s"] == pytest.approx(stated["minibatches_per_s"], rel=0.01)


@pytest.mark.parametrize("key", [*STATED, "speeds", "slow_phases", "groups", "cores", "server.count", "link.shared"])
def test_what_a_real_device_ignores_is_not_predicted(document: Document, key: str) -> None:
    values = {
        **STATED,
        "speeds": [1.0, 0.5],
        "slow_phases": {"every_s": 1.0, "length_s": 1.0, "factor": 2.0},
        "groups": [{"name": "slow", "speed": 0.5}],
        "cores": 64,
        "server.count": 2,
        "link.shared": True,
    }
    real = {
        "backend.device": "cpu",
        "task": {"name": "quadratic", "curvature": [1.0], "optimizer": {"name": "SGD", "lr": 0.1}},
        "sweep": {},
    }
    without = document.points(real)[0].scenario
    beside = document.points({**real, f"hardware.{key}": values[key]})[0].scenario
    assert predicted(beside, CALIBRATION) == predicted(without, CALIBRATION)


def test_the_knee_is_where_the_asymptotic_bounds_meet(document: Document) -> None:
    # round of a lone worker: 5 x 10 ms, client 3 ms, four ways of 0.5 ms, service 5 ms; the server's share is 5 ms
    assert knee(document.points()[2].scenario, CALIBRATION) == pytest.approx(60 / 5)


def test_compare_measures_and_predicts_every_point(document: Document, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["compare", str(document.path), "--out", str(out), "--repeats", "2"])
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(out / "compare.parquet")
    assert table["workers"].tolist() == [1, 4, 1, 4]
    assert table["n_sync"].tolist() == [1, 1, 5, 5]
    assert (table["repeats"] == 2).all()
    assert (table["measured_low"] <= table["measured_mean"]).all()
    assert (table["predicted"] > 0).all()
    # Four workers at 2 ms of computing and 4 of the server's time: it cannot but saturate, in both worlds.
    saturated = table.iloc[1]
    assert saturated["saturated"]
    assert saturated["predicted"] < 1
    assert saturated["measured_mean"] < 1
    for file in ("compare.csv", "compare.png", "compare.pdf"):
        assert (out / file).stat().st_size > 0
    points = [f"algorithm.n_sync={n},workers={w}" for n in (1, 5) for w in (1, 4)]
    for point in points:
        for repeat in range(2):
            assert read_summary(out / "tiny" / "measured" / point / f"repeat-{repeat}")["status"] == "done"
            assert read_summary(out / "tiny" / "predicted" / point / f"repeat-{repeat}")["backend"] == "sim"
        assert f"tiny {point}: predicted" in result.output


def test_compare_refuses_a_scenario_that_is_not_measured(document: Document, tmp_path: Path) -> None:
    arguments = ["compare", str(document.path), "--out", str(tmp_path / "out"), "--set", "backend.name=sim"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "backend" in result.stderr
    assert "must be process" in result.stderr


def test_compare_refuses_two_scenarios_of_one_name_and_a_folder_that_is_in_use_before_it_measures(
    document: Document, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.yaml"
    other.write_text(SCENARIO.replace("workers: 1", "workers: 2"))
    said = CliRunner().invoke(app, ["compare", document.path, str(other), "--out", str(out)])
    assert said.exit_code == 2
    assert said.stderr == "name: several of the scenarios are named 'tiny'; give each a name of its own\n"
    assert not out.exists()
    out.mkdir()
    holder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        (tmp_path / "link").symlink_to(out)
        for path in (out, tmp_path / "link"):
            said = CliRunner().invoke(app, ["compare", document.path, "--out", str(path)])
            assert said.exit_code == 2
            assert f"--out: {path} is in use" in said.stderr
        assert not any(out.iterdir())
    finally:
        os.close(holder)


TIMING = "{name: timing, size_bytes: 1000, step_s: 0.002}"


def test_what_the_simulator_cannot_predict_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        SCENARIO.rpartition("sweep")[0]
        .replace("device: emulated", "device: cpu")
        .replace(TIMING, "{name: quadratic, curvature: [1.0]}")
        + "faults: {schedule: [{name: server_down, at_s: 0.1, for_s: 0.1}]}\n"
    )
    result = CliRunner().invoke(app, ["compare", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert "faults.schedule.0.name: compare cannot predict this: server_down cannot be simulated" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [
    {"faults": {"schedule": [{"name": "slow", "worker": 1, "at_s": 0.1, "until_s": 0.2, "factor": 2.0}]}},
    {"hardware": {"groups": [{"name": "near", "workers": 1}, {"name": "far", "workers": 1, "speed": 0.5}]}},
], ids=["faults", "groups"])  # fmt: skip
def test_what_names_other_workers_is_left_out_where_one_is_measured(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SCENARIO.rpartition("sweep")[0].replace("workers: 1", "workers: 2"))
    assignments = [f"--set={key}={json.dumps(value)}" for key, value in more.items()]
    result = CliRunner().invoke(
        app, ["compare", str(path), "--out", str(tmp_path / "out"), "--repeats", "1", *assignments]
    )
    assert result.exit_code == 0, result.output
