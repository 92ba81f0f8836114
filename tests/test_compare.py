"""Compare: what is predicted with, what is measured, and the table and figure that come of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from asgd_lab.cli import app
from asgd_lab.compare import Calibration, knee, predicted
from asgd_lab.hardware.fit import Fitted
from asgd_lab.record.machine import usable_cores
from asgd_lab.record.run import read_summary
from asgd_lab.scenario import Document
from asgd_lab.scenario.running import Backend

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
