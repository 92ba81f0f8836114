"""Comparison of a record's files with a repetition of the run.

A `Repetition` of a real run gives the pushes, versions and minibatches; a second simulation gives a whole directory. No
file is believed on another file's word, and values that could not be compared are listed.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from asgd_lab.backends import devices
from asgd_lab.backends.run_end import RunEnd
from asgd_lab.backends.settings import settled
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, file_hashes, json_schemas, tables
from asgd_lab.record.columns import TABLES
from asgd_lab.record.saved_model import final
from asgd_lab.record.summary import Statistics, params_sha256
from asgd_lab.record.tables import Recording
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task

FINAL = "checkpoints/final.npz"
# Keys of a summary that do not follow from the scenario.
OF_THIS_MACHINE = {"startup_s", "started_unix_s", "machine_load", "gpus"}
# Keys of a real run's summary that a replay cannot compare, and the reasons.
NOT_REPEATED = dict.fromkeys(("startup_s", "started_unix_s", "overruns", "lateness"), "its processes' own clocks") | {
    "machine_load": "other programs' work at that time",
    "gpus": "this machine's; they decide whether the run can be repeated at all",
    "faults": "deaths, silences and restarts of processes, which a replay does not have",
    "status": "a user or a dead process may have ended the run; a failure of its gate is repeated",
    "failure": "a line on a process or a user's code; that of the gate is made of counts, which are repeated",
    "warnings": "sentences on the scenario and on the numbers above",
    "staleness_counts": "a sentence on runs without versions, which are not repeated",
}
# Keys that the summaries of some real runs lack.
_SOMETIMES = ("staleness_per_shard", "wasted_minibatches", "ended_by", "early_stop", "emulated")


class Contradiction(Exception):
    """A file of the record contradicts the repetition, or another file of the record."""


@dataclass(slots=True)
class Made:
    """The results of a repetition: counts, rows of kept rounds, and facts for the summary."""

    statistics: Statistics
    end: RunEnd = field(default_factory=RunEnd)
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None  # of the gate
    applied: list[tuple[int, int, int]] = field(default_factory=list)  # version, staleness, steps
    minibatches: list[tuple[int, int, float, float]] = field(default_factory=list)  # worker, step, loss, error


def check_gpus(scenario: Scenario, run_dir: Path) -> None:
    """A `ScenarioError` if the run was computed on GPUs and its bits are not promised, or not on this machine."""
    if scenario.backend.device != "cuda":
        return
    if not scenario.backend.deterministic:
        message = "is of device cuda without backend.deterministic: its bits are not promised, and it is not repeated"
        raise ScenarioError(f"{run_dir}: {message}")
    if not devices.count():
        raise ScenarioError(f"{run_dir}: was computed on GPUs, and torch finds none here")
    here, there = devices.facts(scenario)["gpus"], summary_of(run_dir).get("gpus", {})
    if there and ("stand_in" in here) != ("stand_in" in there):
        where = "the CPU, which stood in for GPUs" if "stand_in" in there else "GPUs, for which the CPU stands in here"
        raise ScenarioError(f"{run_dir}: was computed on {where} (ASGD_LAB_GPUS_STAND_IN); set it as it was then")


@settled()
def real_run(
    run_dir: Path, scenario: Scenario, made: Made, updates: int, params: npt.NDArray[np.float32], has_final: bool,
    task: Task,
) -> list[str]:  # fmt: skip
    """Compare a repeated real run with its summary and tables; return a line for each value that cannot be compared.

    The times of a real run cannot be repeated: only the manifest's hashes protect them. But its end and its utilisation
    follow from the times in the log and in the table.
    """
    left = ["not compared: its times, and evaluations on the way"]
    summary = summary_of(run_dir)
    if "updates" not in summary:
        left.append("it has no summary to compare")
    else:
        if params.size and not has_final and summary.get("status") == "done":
            raise ScenarioError(f"{run_dir}: has no final parameters ({FINAL} is missing), and came to its end")
        left += _numbers(scenario, summary, made, updates, params)
        _evaluations(run_dir, summary, updates)
        if summary["final"] and has_final:
            device = devices.home(scenario)
            devices.use(device, scenario.backend.deterministic)
            left += _evaluated(run_dir, summary["final"], torch.from_numpy(params).to(device), task)
    is_killed = json_schemas.read_manifest(run_dir / "manifest.json")["status"] == "running"
    if is_killed and not any(os.path.lexists(table.file(run_dir)) for table in TABLES.values()):
        return [*left, "it was killed before its tables were made"]
    effects = tables.read(run_dir, "effects")
    if "updates" in summary and Recording.named(scenario.record).every == 1:
        _compare("summary.json: utilisation", _utilisation(effects, made.statistics, summary), summary["utilisation"])
    rows = effects[(effects["kind"] == "apply") & (effects["version"] > 0)]
    recorded = Counter(zip(*(rows[name].tolist() for name in ("version", "staleness", "steps")), strict=True))
    _within("effects.parquet: an application (version, staleness, steps)", made.applied, recorded, exactly=True)
    pushes = effects[(effects["kind"] == "push") & (effects["version"] > 0)]
    told = zip(*(pushes[name].tolist() for name in ("version", "staleness", "steps")), strict=True)
    for push in Counter(told) - Counter(made.applied):  # a dead worker's row may be missing
        raise Contradiction(f"effects.parquet: a push (version, staleness, steps) {push} was not repeated")
    minibatches = tables.read(run_dir, "minibatches")
    names = ("worker", "step", "loss", "error")
    found = Counter(zip(*(_bits(minibatches[name]) for name in names), strict=True))
    repeated = [(worker, step, *_bits(numbers)) for worker, step, *numbers in made.minibatches]
    _within("minibatches.parquet: a minibatch (worker, step, and the bits of loss and error)", repeated, found)
    more = len(minibatches) - len(repeated)
    if more:
        left.append(f"{more:,} minibatches that nobody pushed were not repeated")
    return left


def _numbers(
    scenario: Scenario, summary: Mapping[str, Any], made: Made, updates: int, params: npt.NDArray[np.float32]
) -> list[str]:
    """Compare a real run's summary, except utilisation and evaluations; return a line for each key that it lacks."""
    own = dict.fromkeys(_SOMETIMES) | made.statistics.summary(
        backend=scenario.backend.name, seed=scenario.seed, makespan_ns=_makespan_ns(summary), updates=updates,
        final={}, params_sha256=params_sha256(params),
    )  # fmt: skip
    own["emulated"] = True if scenario.backend.device == "emulated" else None
    own["wasted_minibatches"] = made.facts["wasted_minibatches"]
    if summary.get("status") == "done":
        own |= made.facts
        if _makespan_ns(summary) not in (made.end.ns, made.end.before_ns):
            _compare("summary.json: makespan_s", made.end.ns * 1e-9, summary["makespan_s"])
    if made.failure is not None:
        _compare("summary.json: status", "failed", summary.get("status"))
    left = []
    for name in sorted(own.keys() - {"utilisation", "final", "makespan_s"}):
        if name in summary or own[name] is None:
            _compare(f"summary.json: {name}", own[name], summary.get(name))
        else:  # of an earlier version
            left.append(f"its summary has no {name}")
    return left


def _makespan_ns(summary: Mapping[str, Any]) -> int:
    makespan_s: float = summary["makespan_s"]
    return round(makespan_s * 1e9)


def _utilisation(effects: pd.DataFrame, statistics: Statistics, summary: Mapping[str, Any]) -> Any:
    """The utilisation as the table has it: workers train and servers serve, up to the end of the run."""
    end_ns = _makespan_ns(summary)
    begun, ended = ((effects[name] * 1e9).round().clip(upper=end_ns).astype("int64") for name in ("start_s", "end_s"))
    busy, by = ended - begun, effects["worker"]
    trains = effects["kind"] == "train"
    for worker in sorted(set(by[trains].tolist())):
        statistics.worker_busy(worker, int(busy[trains & (by == worker)].sum()))
    statistics.server_busy(int(busy[by < 0].sum()))
    again = statistics.summary(
        backend="", seed=0, makespan_ns=end_ns, updates=0, final={}, params_sha256=""
    )  # fmt: skip
    return again["utilisation"]


def simulated_run(run_dir: Path, here: Path) -> list[str]:
    """Compare a simulated run with the same run simulated `here`; return a line for each value without a partner."""
    there, own = summary_of(run_dir), atomic_files.read_json(here / "summary.json")
    ended_s, left = own["makespan_s"], []
    if _ended_late(own, there, here):
        own["makespan_s"] = there["makespan_s"]
        own["minibatches_per_s"] = own["minibatches"] * 1_000_000_000 / _makespan_ns(there)
    for name in sorted(own.keys() - OF_THIS_MACHINE):
        if name in there:
            _compare(f"summary.json: {name}", own[name], there[name])
        else:
            left.append(f"its summary has no {name}")
    left += [f"its summary has {name}, which is not made here" for name in sorted(there.keys() - own.keys())]
    for name, table in TABLES.items():
        if table.file(here).exists():
            known, again = tables.columns_of(run_dir, name), tables.read(here, name)
            if name == "effects" and "incarnation" not in known:  # such a version recorded no staleness of drops either
                again["staleness"] = again["staleness"].where(again["version"] >= 0, -1)
            if name == "evals":
                again["time_s"] = again["time_s"].where(again["time_s"] != ended_s, own["makespan_s"])
            left += _table(name, tables.read(run_dir, name)[known], again)
    if (here / FINAL).exists():
        ours, theirs = (atomic_files.read_arrays(folder / FINAL) for folder in (here, run_dir))
        for name in ("params", *sorted(ours.keys() & theirs.keys())):
            if name not in theirs or ours[name].tobytes() != theirs[name].tobytes():
                what = "final parameters" if name == "params" else f"final {name}"
                raise Contradiction(f"{FINAL}: the {what} are others")
    return left


def _ended_late(own: Mapping[str, Any], there: Mapping[str, Any], here: Path) -> bool:
    """Whether the record is of an inline run of an earlier version, which ended with its last push, dropped or not.

    Where not all pushes have rows, any later end is believed.
    """
    if own["backend"] != "inline" or not isinstance(there.get("makespan_s"), float):
        return False
    end_ns = _makespan_ns(there)
    if end_ns <= _makespan_ns(own):
        return False
    effects = tables.read(here, "effects")
    applies = effects[effects["kind"] == "apply"]
    is_whole = len(applies) == int(own["pushes"])
    return not is_whole or end_ns == round(float(applies["end_s"].max()) * 1e9)


def sealed(run_dir: Path) -> list[str]:
    """Contradiction if a file is not the one that the run wrote; a line if the manifest knows none of them."""
    try:
        known = [name for name in file_hashes.HASHED if file_hashes.check(run_dir, name)]
    except ScenarioError as error:
        raise Contradiction(str(error)) from error
    return [] if known else ["its manifest knows no hashes of its files"]


def summary_of(run_dir: Path) -> dict[str, Any]:
    """The summary of a run; {} if it was killed before it had one."""
    path = run_dir / "summary.json"
    return json_schemas.read_summary(path) if path.exists() or path.is_symlink() else {}


def _compare(what: str, here: Any, there: Any) -> None:
    """Contradiction unless the record has this value, in the form that a JSON file gives it."""
    if (here := atomic_files.finite(here)) != there:
        raise Contradiction(f"{what} is {_shown(here)} here and {_shown(there)} in the record")


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _evaluations(run_dir: Path, summary: Mapping[str, Any], updates: int) -> None:
    """Compare the last evaluations of the server's parameters in the table and in the summary."""
    evals = tables.read(run_dir, "evals")
    last = evals[(evals["parameters"] == "server") & (evals["version"] == updates)]
    for name, value in summary["final"].items():
        rows = last[last["split"] + "_" + last["metric"] == name]
        values = [None if np.isnan(each) else each for each in rows["value"].tolist()]
        if values and value not in values:
            raise Contradiction(
                f"evals.parquet: {name} of the last version is {values[-1]}, and summary.json has {value}"
            )


def _evaluated(run_dir: Path, claimed: Mapping[str, float | None], params: torch.Tensor, task: Task) -> list[str]:
    """Evaluate the last version again; return a line if that needed recorded buffers."""
    buffers = {name: torch.from_numpy(value) for name, value in final(run_dir).buffers.items()}
    own = {f"{split}_{metric}": value for split, metric, value in task.evaluate(params.clone(), buffers)}
    for name, there in claimed.items():
        here = own.get(name, math.nan)
        _compare(f"summary.json: final: {name}", None if math.isnan(here) else here, there)
    return ["its last evaluation was repeated with the recorded buffers of worker 0"] if buffers else []


def _within(
    what: str, made: Iterable[tuple[Any, ...]], recorded: Counter[tuple[Any, ...]], exactly: bool = False
) -> None:
    """Contradiction unless the table has each made row as often; with `exactly`, and no other row."""
    own = Counter(made)
    for row in own - recorded:
        raise Contradiction(f"{what} {row} is not in the record")
    if exactly:
        for row in recorded - own:
            raise Contradiction(f"{what} {row} is in the record, and was not repeated")


def _table(name: str, there: pd.DataFrame, here: pd.DataFrame) -> list[str]:
    """Contradiction unless all common columns are equal to the bit; return a line for each missing column."""
    if len(there) != len(here):
        raise Contradiction(f"{name}.parquet: has {len(there):,} rows in the record and {len(here):,} here")
    for column in here.columns:
        if column in there and (unequal := np.flatnonzero(_bits(here[column]) != _bits(there[column]))).size:
            row = int(unequal[0])
            values = f"{here[column].iloc[row]} here and {there[column].iloc[row]} in the record"
            raise Contradiction(f"{name}.parquet: row {row:,}: {column} is {values}")
    return [f"{name}.parquet has no column {column}" for column in here.columns if column not in there]


def _bits(values: Any) -> Any:
    """Floats as their bits, so that NaN equals NaN; other values unchanged."""
    array = np.asarray(values)
    return array.view(np.int64) if array.dtype == np.float64 else array
