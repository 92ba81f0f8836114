"""Predicted beside measured: calibrates on one worker, then simulates and measures every point of a scenario's sweep.

Speed-up is throughput relative to a device that only computes: minibatches per second times the mean seconds of a
minibatch. So one worker's own synchronisation counts, and a point with one worker is a prediction too. The prediction
uses the calibration and the scenario, never the measured points.

The speed of a shared machine changes by a third within minutes. So each measured run of real devices is preceded and
followed by a short run of one worker, whose minibatches are its unit; an emulated device's unit is the stated time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from asgd_lab.backends import devices
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.fit import Fitted, few, fit, step_times_s
from asgd_lab.hardware.step_times import mean_step_s
from asgd_lab.record import atomic_files, tables
from asgd_lab.record.directory_names import file_name, file_names
from asgd_lab.record.machine import usable_cores
from asgd_lab.record.machine_load import Load
from asgd_lab.record.summary import LATENESS_ALLOWED
from asgd_lab.scenario import Document, Point, Scenario
from asgd_lab.scenario.backends import Backend
from asgd_lab.scenario.faults import faults
from asgd_lab.scenario.hardware import Client, Compute, Device, Hardware, Link, Server
from asgd_lab.scenario.running import Budget
from asgd_lab.scenario.tasks import Timing

CALIBRATION_S = 2.0  # of each of two runs
REFERENCE_S = 1.0
CONFIDENCE = 0.95

FILES = ("compare.parquet", "compare.csv", "compare.png", "compare.pdf")
"""The files written beside the folders of the scenarios."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The results of one worker's runs: costs by kind, bytes of a push, and mean seconds of a minibatch.

    An emulated device waits for the times that the scenario states, so the prediction uses those.
    """

    fitted: Fitted
    size_bytes: int
    step_s: float


def compare(
    documents: Sequence[Document], overrides: Mapping[str, Any], out: Path, repeats: int, say: Say
) -> Iterator[dict[str, Any]]:
    """Measure and simulate every point of every document; yields a row of the table per point. Runs are below `out`.

    A row has scenario, point, group (the device), workers, n_sync, n_push, saturated (see `knee`), server_utilisation
    (predicted), predicted, measured_mean, measured_low, measured_high (a 95% interval), measured_sd, repeats, error (of
    the prediction, relative), staleness_predicted, staleness_measured, overruns (the mean share of emulated minibatches
    that took longer than stated), lateness (the largest lateness of an emulated run, see `launch.lateness`; nan for
    real devices), valid (whether the lateness is small enough), machine_load (the largest share of the machine's cores
    that others took during a measured run), busy (whether that share is too large).
    """
    names = check(documents, overrides)
    for document, name in zip(documents, file_names(names, FILES), strict=True):
        points = document.points(overrides)
        folder = out / name
        calibrations: dict[str, Calibration] = {}
        for point in points:
            machine = machine_of(point.scenario)
            if machine not in calibrations:
                alike = [p.scenario for p in points if machine_of(p.scenario) == machine]
                calibrations[machine] = calibrate(alike, folder / "calibration" / str(len(calibrations)), say)
            yield _row(point, calibrations[machine], folder, repeats, say)


def check(documents: Sequence[Document], overrides: Mapping[str, Any], command: str = "compare") -> list[str]:
    """The names of the scenarios; a `ScenarioError` if one of their points cannot be measured and predicted."""
    names = [document.points(overrides)[0].scenario.name for document in documents]
    for name in names:
        if names.count(name) > 1:
            raise ScenarioError(f"name: several of the scenarios are named {name!r}; give each a name of its own")
    for document in documents:
        for point in document.points(overrides):
            try:
                _check(point.scenario, command)
            except ScenarioError as error:
                raise document.located(error, overrides) from None
    return names


def _check(scenario: Scenario, command: str) -> None:
    if not scenario.backend.execution.measured:
        raise ScenarioError.at("backend", f"{command} measures: backend must be process")
    for key in ("target_error", "target", "early_stop"):
        if getattr(scenario.budget, key) is not None:
            message = "a prediction of timing alone knows no metric; use seconds, minibatches or updates"
            raise ScenarioError.at(f"budget.{key}", message)
    anything = Calibration(Fitted(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.ones(1)), 1, 1.0)
    try:
        Scenario.model_validate(predicted(scenario, anything).model_dump(mode="json"))
    except ValidationError as error:
        for each in faults(error):
            if each.key.startswith("faults."):  # other errors come from numbers that are not measured yet
                raise ScenarioError.at(each.key, f"{command} cannot predict this: {each.message}") from None


def machine_of(scenario: Scenario) -> str:
    """A key of everything that the costs depend on: points with equal keys share a calibration."""
    rhythm = {"n_sync", "n_fetch", "n_push", "bound"}
    algorithm = scenario.algorithm.model_dump(exclude=rhythm)
    return f"{algorithm} {scenario.model_dump_json(include={'task', 'hardware', 'backend'})}"


def _run(scenario: Scenario, path: Path) -> dict[str, Any]:
    summary = execute(scenario, path)
    if summary["status"] == "interrupted":
        raise KeyboardInterrupt
    return summary


def _alone(scenario: Scenario, seconds: float) -> Scenario:
    """The scenario with one worker and without groups, links and faults, which may name others."""
    hardware = scenario.hardware.model_copy(update={"groups": [], "links": []})
    return scenario.model_copy(
        update={
            "workers": 1, "budget": Budget(seconds=seconds), "record": "all", "evaluate": None, "faults": None,
            "hardware": hardware,
        }
    )  # fmt: skip


def calibrate(scenarios: Sequence[Scenario], folder: Path, say: Say) -> Calibration:
    """Run one worker for a few seconds, half of them with the scenarios' shortest rounds, half with the longest."""
    by_length = sorted({scenario.algorithm.n_fetch: scenario for scenario in scenarios}.items())
    runs: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    for n_fetch, scenario in (by_length[0], by_length[-1]):
        path = folder / f"{len(runs)}-n_fetch={n_fetch}"
        _run(_alone(scenario, CALIBRATION_S), path)
        runs.append((tables.read(path, "effects"), tables.read(path, "minibatches")))
    costs, size_bytes = fit(runs), int(runs[0][0]["bytes"].max())
    if scenario.backend.device == "emulated":
        step_s = mean_step_s(scenario.hardware.compute, getattr(scenario.task, "step_s", None))
        costs = replace(costs, cold_s=0.0)  # the stated time contains the cost of a cold cache
    else:
        step_s = float(np.mean(costs.step_times_s))
    calibration = Calibration(costs, size_bytes, step_s)
    say(
        f"{scenario.name}: calibrated on {len(costs.step_times_s)} minibatches of one worker: "
        f"{calibration.step_s * 1e3:.3f} ms a minibatch; server {costs.server_push_s * 1e3:.3f} ms a push, "
        f"{costs.server_fetch_s * 1e3:.3f} ms a fetch; client {costs.client_push_s * 1e3:.3f} and "
        f"{costs.client_fetch_s * 1e3:.3f} ms, {costs.cold_s * 1e3:.3f} ms of cold caches; one way "
        f"{costs.latency_s * 1e3:.3f} ms"
    )
    return calibration


def predicted(scenario: Scenario, calibration: Calibration) -> Scenario:
    """The simulated scenario for a measured one: the same protocol, timing only, with the calibrated costs.

    Of the stated hardware only the times of emulated devices are kept: calibration has measured everything else, and
    real devices ignore the stated hardware.
    """
    costs, emulated = calibration.fitted, scenario.backend.device == "emulated"
    if emulated:  # its devices wait for the stated times
        kept = {key: getattr(scenario.hardware, key) for key in ("compute", "speeds", "slow_phases", "groups")}
    else:
        samples = few(costs.step_times_s).tolist()
        kept = {"compute": Compute(distribution="empirical", samples_s=samples)}
    # Stated links and services are in the measured costs already, or have no effect on a real run.
    hardware = Hardware().model_copy(
        update={
            **kept,
            "client": Client(push_s=costs.client_push_s, fetch_s=costs.client_fetch_s + costs.cold_s),
            "server": Server(push_s=costs.server_push_s, fetch_s=costs.server_fetch_s),
            "link": Link(latency_s=costs.latency_s),
            # An emulated device sleeps for its stated time, and occupies no core.
            "cores": usable_cores() if scenario.backend.device == "cpu" else None,
            "device": Device(workers=sharing(scenario)),
        }
    )
    task = Timing(name="timing", size_bytes=calibration.size_bytes, step_s=calibration.step_s)
    return scenario.model_copy(
        update={
            "task": task,
            "hardware": hardware,
            "backend": Backend(name="sim", device="cpu" if scenario.backend.device == "cpu" else "emulated"),
            "warm_start": None,
            "evaluate": None,
        }
    )


def sharing(scenario: Scenario) -> int:
    """The number of workers that share a device; a lone worker is assumed to keep a GPU busy."""
    return -(-scenario.workers // devices.count()) if scenario.backend.device == "cuda" else 1


def knee(scenario: Scenario, calibration: Calibration) -> float:
    """The number of workers beyond which the server is the bottleneck in any order of events.

    With R the round of a lone worker and S the server's share of it, throughput is at most min(M / R, 1 / S)
    (asymptotic bounds of a closed queueing network); the two bounds meet at R / S workers.
    """
    costs = calibration.fitted
    pushes = scenario.algorithm.n_fetch / scenario.algorithm.n_push  # per round, from fetch to fetch
    service_s = pushes * costs.server_push_s + costs.server_fetch_s
    round_s = (
        scenario.algorithm.n_fetch * calibration.step_s
        + pushes * (costs.client_push_s + 2 * costs.latency_s)
        + costs.client_fetch_s
        + costs.cold_s
        + 2 * costs.latency_s
        + service_s
    )
    return round_s / service_s


def write(table: pd.DataFrame, out: Path) -> list[Path]:
    """Write the table as compare.parquet and compare.csv, and the figure, into `out`."""
    from asgd_lab.figures import speedup, style

    atomic_files.write(out / "compare.parquet", table.to_parquet())
    atomic_files.write(out / "compare.csv", table.to_csv(index=False).encode())
    return [out / "compare.csv", out / "compare.parquet", *style.save(speedup.speedup_figure(table), out / "compare")]


def _reference_s(scenario: Scenario, calibration: Calibration, path: Path) -> float:
    """Mean seconds of a minibatch now, from a run of one worker that rarely synchronises."""
    if scenario.backend.device == "emulated":
        return calibration.step_s
    steps = max(10, round(REFERENCE_S / 4 / calibration.step_s))
    rhythm: dict[str, int] = dict.fromkeys(
        {"n_sync", "n_fetch", "n_push"} & set(type(scenario.algorithm).model_fields), steps
    )
    algorithm = scenario.algorithm.model_copy(update=rhythm)
    _run(_alone(scenario.model_copy(update={"algorithm": algorithm}), REFERENCE_S), path)
    return float(np.mean(step_times_s(tables.read(path, "effects"), tables.read(path, "minibatches"))))


def _row(point: Point, calibration: Calibration, folder: Path, repeats: int, say: Say) -> dict[str, Any]:
    scenario, name = point.scenario, file_name(point.name or "point")
    # Each run has its own seed, so that neither repeats nor predictions share random times.
    seeds = [scenario.model_copy(update={"seed": scenario.seed + number}) for number in range(2 * repeats)]
    simulated = [
        _run(predicted(seeds[repeats + number], calibration), folder / "predicted" / name / f"repeat-{number}")
        for number in range(repeats)
    ]
    measured, speedups = [], []
    before_s = _reference_s(scenario, calibration, folder / "reference" / name / "0")
    for number in range(repeats):
        summary = _run(seeds[number], folder / "measured" / name / f"repeat-{number}")
        after_s = _reference_s(scenario, calibration, folder / "reference" / name / str(number + 1))
        measured.append(summary)
        speedups.append(summary["minibatches_per_s"] * (before_s + after_s) / 2)
        before_s = after_s
    mean, deviation = float(np.mean(speedups)), float(np.std(speedups, ddof=1)) if repeats > 1 else float("nan")
    from scipy import stats  # its import takes a second

    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, max(repeats - 1, 1))) * deviation / repeats**0.5
    speedup = float(np.mean([summary["minibatches_per_s"] for summary in simulated])) * calibration.step_s
    busy = float(np.mean([summary["utilisation"]["server"] for summary in simulated]))
    overruns = float(np.mean([summary.get("overruns", {}).get("share", 0.0) for summary in measured]))
    lateness = max((summary["lateness"]["judged"] for summary in measured if "lateness" in summary), default=math.nan)
    load = max((Load(**summary["machine_load"]) for summary in measured), key=sum)
    beside = f"; {load}" if load.is_busy else ""
    say(f"{scenario.name} {point.name}: predicted {speedup:.2f}, measured {mean:.2f}{beside}")
    return {
        "scenario": scenario.name,
        "point": point.name,
        "group": scenario.backend.device,
        "workers": scenario.workers,
        "n_sync": scenario.algorithm.n_fetch,
        "n_push": scenario.algorithm.n_push,
        "saturated": scenario.workers > knee(scenario, calibration),
        "server_utilisation": busy,
        "predicted": speedup,
        "measured_mean": mean,
        "measured_low": mean - half,
        "measured_high": mean + half,
        "measured_sd": deviation,
        "repeats": repeats,
        "error": speedup / mean - 1.0,
        "staleness_predicted": float(np.mean([summary["staleness"]["mean"] for summary in simulated])),
        "staleness_measured": float(np.mean([summary["staleness"]["mean"] for summary in measured])),
        "overruns": overruns,
        "lateness": lateness,
        "valid": not lateness > LATENESS_ALLOWED,
        "machine_load": sum(load),
        "busy": load.is_busy,
    }
