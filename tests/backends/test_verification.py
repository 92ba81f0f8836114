"""Replay believes no file because another one says so: each claim of a record is changed, and named.

The manifest is made to vouch for what was changed, so that nothing but the comparison itself can find it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asgd_lab.backends.replay import repeat
from asgd_lab.backends.verification import NOT_REPEATED, Contradiction, real_run, summary_of
from asgd_lab.record import atomic_files, file_hashes
from tests.cli.harness import Said, asgd_lab
from tests.whole import sample

from .scenarios import DIGITS, run
from .scenarios import scenario as stated_as

BACKENDS: dict[str, Any] = {
    "process": {"name": "process", "digest_every_updates": 5}, "sim": {"name": "sim"}, "inline": {"name": "inline"},
}  # fmt: skip
SUMMARY = (
    *("backend", "workers", "seed", "updates", "minibatches", "pushes", "dropped", "dropped_minibatches"),
    *("minibatches_per_s", "params_sha256", "staleness", "final"),
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each backend."""
    folder = tmp_path_factory.mktemp("records")
    for name, backend in BACKENDS.items():
        run(folder / name, backend=backend, workers=2, task=DIGITS, budget={"minibatches": 60})
    return {name: folder / name for name in BACKENDS}


def summary(key: str) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        facts = atomic_files.read_json(out / "summary.json")
        value = facts[key]
        if isinstance(value, dict):
            name = next(iter(value))
            value = {**value, name: (value[name] or 0) + 0.5}
        facts[key] = value + 1 if isinstance(value, int | float) else f"0{value}" if isinstance(value, str) else value
        atomic_files.write_json(out / "summary.json", facts)

    return change


def table(name: str, column: str, kind: str | None = None) -> Callable[[Path], None]:
    """Change the last value of a column (of rows of a kind) by one, or by one bit."""

    def change(out: Path) -> None:
        path = out / f"{name}.parquet"
        frame = pd.read_parquet(path)
        rows = frame.index if kind is None else frame.index[(frame["kind"] == kind) & (frame["version"] > 0)]
        values = frame[column].to_numpy().copy()
        values[rows[-1]] = values[rows[-1]] + 1 if values.dtype.kind == "i" else np.nextafter(values[rows[-1]], 9.0)
        frame[column] = values
        schema = pq.read_schema(path)
        pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), path)

    return change


def parameters(out: Path) -> None:
    arrays = atomic_files.read_arrays(out / "checkpoints" / "final.npz")
    arrays["params"][-1] = np.nextafter(arrays["params"][-1], np.float32(9))
    atomic_files.write_arrays(out / "checkpoints" / "final.npz", arrays)


def scenario(out: Path) -> None:
    path = out / "scenario.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("minibatches: 60", "minibatches: 61"), encoding="utf-8")


CLAIMS: dict[str, Callable[[Path], None]] = {
    **{f"summary.json: {key}": summary(key) for key in SUMMARY},
    "effects.parquet: staleness": table("effects", "staleness", "apply"),
    "effects.parquet: a push's staleness": table("effects", "staleness", "push"),
    "effects.parquet: steps": table("effects", "steps", "apply"),
    "minibatches.parquet: loss": table("minibatches", "loss"),
    "minibatches.parquet: error": table("minibatches", "error"),
    "minibatches.parquet: step": table("minibatches", "step"),
    "evals.parquet: value": table("evals", "value"),
    "final.npz: params": parameters,
    "scenario.yaml: values": scenario,
}


def changed(record: Path, out: Path, change: Callable[[Path], None]) -> Said:
    shutil.copytree(record, out)
    change(out)
    manifest = atomic_files.read_json(out / "manifest.json") | file_hashes.seals(out)
    atomic_files.write_json(out / "manifest.json", manifest)
    return asgd_lab("replay", out)


RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "divided": {"hardware": {"server": {"count": 2, "independent": True}, "compute": {"step_s": 0.001}}},
    "stopped": {"algorithm": {"name": "tests.backends.stopping:Stopping", "n_fetch": 8, "n_push": 3}},
    "emulated": {"backend": {"name": "process", "device": "emulated"}, "faults": {"on_death": "restart"}},
    "early": {
        "budget": {
            "minibatches": 400,
            "early_stop": {"split": "train", "metric": "loss", "patience": 2},
            "target_window": 20,
        }
    },
    "early, before its first window": {
        "budget": {
            "minibatches": 12,
            "early_stop": {"split": "train", "metric": "loss", "patience": 2},
            "target_window": 20,
        }
    },
}


@pytest.mark.parametrize("name", sample(list(RUNS), 2))
def test_every_key_of_a_real_runs_summary_is_compared_or_has_a_reason(tmp_path: Path, name: str) -> None:
    parts = {"backend": "process", "workers": 2, "task": DIGITS, "budget": {"minibatches": 120}, **RUNS[name]}
    told = run(tmp_path / "run", **parts)
    stated = stated_as(**parts)
    verdict = repeat(stated, tmp_path / "run")
    assert verdict.difference is None

    def compared() -> list[str]:
        return real_run(
            tmp_path / "run", stated, verdict.made, verdict.versions, verdict.params, verdict.final, verdict.task
        )

    compared()
    for key in told.keys() - NOT_REPEATED.keys():
        facts = atomic_files.read_json(tmp_path / "run" / "summary.json")
        other = {**facts, key: another(facts[key])}
        atomic_files.write_json(tmp_path / "run" / "summary.json", other)
        with pytest.raises(Contradiction, match=key if key != "final" else "final|evals"):
            compared()
        atomic_files.write_json(tmp_path / "run" / "summary.json", facts)
    missing = {"divided": "staleness_per_shard", "stopped": "wasted_minibatches", "early": "early_stop"}.get(name)
    assert missing is None or missing in told, "the run shows what it is for"


def test_a_run_that_ends_before_an_early_stop_has_a_best_value_repeats(tmp_path: Path) -> None:
    parts = {"backend": "process", "workers": 2, "task": DIGITS, **RUNS["early, before its first window"]}
    told = run(tmp_path / "run", **parts)
    assert not math.isfinite(told["early_stop"]["best"] or math.nan)
    assert summary_of(tmp_path / "run")["early_stop"]["best"] is None
    said = asgd_lab("replay", tmp_path / "run")
    assert said.status == 0, said


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_a_push_that_comes_too_late_is_after_the_end_of_the_clock(tmp_path: Path, backend: str) -> None:
    out = tmp_path / "run"
    told = run(out, backend=backend, workers=4, task=DIGITS, budget={"updates": 10})
    applies = pd.read_parquet(out / "effects.parquet").query("kind == 'apply'")
    assert told["makespan_s"] == pytest.approx(applies.query("version > 0")["end_s"].max(), abs=1e-9)
    if backend == "process":
        return
    assert told["dropped"], "there was such a push"
    late_s = applies["end_s"].max()
    assert late_s > told["makespan_s"]

    def ended(end_s: float) -> Callable[[Path], None]:
        """As a version had it that let the clock of an inline run go on to its last drop."""

        def change(record: Path) -> None:
            facts = atomic_files.read_json(record / "summary.json")
            rate = facts["minibatches"] * 1_000_000_000 / round(end_s * 1e9)
            atomic_files.write_json(record / "summary.json", facts | {"makespan_s": end_s, "minibatches_per_s": rate})
            frame, schema = (read(record / "evals.parquet") for read in (pd.read_parquet, pq.read_schema))
            frame["time_s"] = end_s
            pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), record / "evals.parquet")

        return change

    assert changed(out, tmp_path / "earlier", ended(late_s)).status == 0
    assert changed(out, tmp_path / "other", ended(late_s + 1e-9)).status == 1


def another(value: Any) -> Any:
    """A value of the same type, a little different at one place."""
    if isinstance(value, dict):
        name = next(iter(value))
        return {**value, name: another(value[name])}
    if isinstance(value, list):
        return [another(value[0]), *value[1:]]
    if isinstance(value, bool):
        return not value
    return f"0{value}" if isinstance(value, str) else 0.5 if value is None else value + 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_record_that_nobody_changed_is_the_same(records: dict[str, Path], tmp_path: Path, backend: str) -> None:
    said = changed(records[backend], tmp_path / "run", lambda out: None)
    assert said.status == 0, said.err


@pytest.mark.parametrize(
    ("backend", "claim"), sample([(backend, claim) for backend in BACKENDS for claim in CLAIMS], 20)
)
def test_each_claim_of_a_record_is_compared(records: dict[str, Path], tmp_path: Path, backend: str, claim: str) -> None:
    said = changed(records[backend], tmp_path / "run", CLAIMS[claim])
    assert said.status == 1, (claim, said)
    assert said.err.count("\n") == 1
    named = claim.partition(":")[0]
    assert named in said.err or (claim == "summary.json: final" and "evals.parquet" in said.err)


def test_a_comment_in_a_recorded_scenario_changes_nothing(records: dict[str, Path], tmp_path: Path) -> None:
    def comment(out: Path) -> None:
        path = out / "scenario.yaml"
        path.write_text("# mine\n" + path.read_text(encoding="utf-8"), encoding="utf-8")

    assert changed(records["sim"], tmp_path / "run", comment).status == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_final_parameters_that_are_missing_or_of_another_run_are_never_called_the_same(
    records: dict[str, Path], tmp_path: Path, backend: str
) -> None:
    said = changed(records[backend], tmp_path / "missing", lambda out: (out / "checkpoints" / "final.npz").unlink())
    assert said.status in (1, 2)
    assert "final.npz is missing" in said.err or "final.npz: is missing" in said.err

    def garbage(out: Path) -> None:
        (out / "checkpoints" / "final.npz").write_bytes(b"garbage")

    said = changed(records[backend], tmp_path / "garbage", garbage)
    assert said.status == 2
    assert "final.npz: is damaged" in said.err


def test_what_could_not_be_compared_is_said(records: dict[str, Path], tmp_path: Path) -> None:
    said = changed(records["process"], tmp_path / "run", lambda out: None)
    line = " ".join(said.out.split())
    assert line.endswith("the final parameters are the same bits; not compared: its times, and evaluations on the way")
    assert len(line.removeprefix(str(tmp_path / "run"))) < 160

    def unsealed(out: Path) -> None:
        for name in ("summary.json", "checkpoints/final.npz"):  # as of a run that was killed
            (out / name).unlink()
        atomic_files.write_json(
            out / "manifest.json", atomic_files.read_json(out / "manifest.json") | {"status": "running"}
        )

    said = changed(records["process"], tmp_path / "killed", unsealed)
    assert said.status == 0
    for words in ("no final parameters to compare", "no summary to compare"):
        assert words in said.out.replace("\n", " ")
