"""The backends agree: the same protocol over the same task gives the same bits wherever the outcome is determined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asgd_lab.backends.build import build_algorithm, build_budget, build_task, initial_parameters
from asgd_lab.backends.inline import Inline, order_of
from asgd_lab.record import tables
from asgd_lab.record.saved_model import final_params
from asgd_lab.record.summary import params_sha256

from .scenarios import DIGITS, QUADRATIC, run, scenario

BACKENDS = ["inline", "sim", "process"]

ALONE: dict[str, dict[str, Any]] = {
    "momentum kept": {"algorithm": {"name": "asgd", "n_sync": 3}},
    "momentum reset": {"algorithm": {"name": "asgd", "n_sync": 7, "momentum_at_fetch": "reset"}},
    "fetch more often": {"algorithm": {"name": "asgd", "n_fetch": 3, "n_push": 5}},
    "push more often": {"algorithm": {"name": "asgd", "n_fetch": 5, "n_push": 3}},
    "gradients": {
        "algorithm": {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "adagrad", "lr": 0.05}]}
    },
    "digits": {"task": DIGITS, "algorithm": {"name": "sgd", "n_sync": 4}},
}
LOCK_STEP: dict[str, dict[str, Any]] = {
    "quadratic": {"task": QUADRATIC, "algorithm": {"name": "sync_sgd", "n_sync": 2}},
    "digits": {
        "task": DIGITS,
        "algorithm": {"name": "sync_sgd", "n_sync": 3, "rule": ["mean", {"name": "momentum", "beta": 0.5}]},
    },
}


@pytest.mark.parametrize("case", ALONE)
def test_one_worker_gives_the_same_bits_on_every_backend(tmp_path: Path, case: str) -> None:
    hashes = {name: run(tmp_path / name, backend=name, **ALONE[case])["params_sha256"] for name in BACKENDS}
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.parametrize("case", LOCK_STEP)
def test_three_workers_in_lock_step_give_the_same_bits_on_every_backend(tmp_path: Path, case: str) -> None:
    hashes = {
        name: run(tmp_path / name, workers=3, backend=name, **LOCK_STEP[case])["params_sha256"] for name in BACKENDS
    }
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.parametrize("backend", ["sim", "process"])
@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "asgd", "n_sync": 3, "rule": ["scale", {"name": "momentum", "beta": 0.5}]},
        {"name": "ssp", "n_sync": 2, "bound": 1},
        {"name": "sync_sgd", "n_sync": 2},
    ],
    ids=lambda a: a["name"],
)
def test_a_recorded_order_repeated_inline_gives_the_same_bits(
    tmp_path: Path, backend: str, algorithm: dict[str, Any]
) -> None:
    parts: dict[str, Any] = {"workers": 4, "algorithm": algorithm, "budget": {"minibatches": 70}}
    run(tmp_path / "run", backend=backend, **parts)
    again = scenario(**parts)
    task = build_task(again)
    lab = Inline(task, build_algorithm(again), build_budget(again), 4, initial_parameters(again, task))
    lab.run(order_of(tables.read(tmp_path / "run", "effects")))
    assert params_sha256(lab.parameters.numpy()) == params_sha256(final_params(tmp_path / "run"))
    assert lab.server.minibatches == 70


def test_a_simulation_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, backend="sim", workers=5, task=DIGITS, evaluate={"every_minibatches": 20})
    for file in ("effects.parquet", "minibatches.parquet", "evals.parquet", "summary.json", "trace.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_every_so_many_steps_is_as_often_a_worker_however_many_there_are(tmp_path: Path, backend: str) -> None:
    for workers in (1, 3):
        out = tmp_path / str(workers)
        run(out, backend=backend, workers=workers, task=DIGITS, evaluate={"every_steps": 10},
            algorithm={"name": "sync_sgd", "n_sync": 5}, budget={"minibatches": 40 * workers})  # fmt: skip
        evals = tables.read(out, "evals").query("metric == 'error' and split == 'test'")
        assert evals["minibatches"].drop_duplicates().tolist() == [10 * workers * place for place in range(5)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_budget_of_minibatches_is_used_exactly(tmp_path: Path, backend: str) -> None:
    summary = run(tmp_path / "run", backend=backend, workers=3, budget={"minibatches": 41})
    assert summary["minibatches"] == 41
    assert tables.read(tmp_path / "run", "minibatches")["step"].count() == 41
    applied = tables.read(tmp_path / "run", "effects").query("kind == 'apply'")
    assert applied["steps"].sum() == 41
    assert sorted(applied["version"]) == list(range(1, summary["updates"] + 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_lock_step_every_push_has_its_row_and_all_of_a_round_one_version(tmp_path: Path, backend: str) -> None:
    run(tmp_path / "run", backend=backend, workers=4, algorithm={"name": "sync_sgd", "n_sync": 1})
    applied = tables.read(tmp_path / "run", "effects").query("kind == 'apply'")
    assert applied["steps"].sum() == 40
    assert applied.groupby("version").size().tolist() == [4] * 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sampled_record_keeps_every_hundredth_round(tmp_path: Path, backend: str) -> None:
    parts: dict[str, Any] = {"budget": {"minibatches": 500}, "algorithm": {"name": "asgd", "n_sync": 2}}
    run(tmp_path / "run", backend=backend, record="sampled", **parts)
    effects, minibatches = (tables.read(tmp_path / "run", name) for name in ("effects", "minibatches"))
    assert set(effects["round"]) == {1, 101, 201}
    assert minibatches["step"].tolist() == [0, 1, 200, 201, 400, 401]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_budget_of_updates_ends_the_run_with_that_version(tmp_path: Path, backend: str) -> None:
    summary = run(tmp_path / "run", backend=backend, workers=3, budget={"updates": 7})
    assert summary["updates"] == 7
    assert summary["pushes"] - summary["dropped"] == 7


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_a_budget_of_seconds_ends_the_run_at_that_time(tmp_path: Path, backend: str) -> None:
    summary = run(
        tmp_path / "run",
        backend={"name": backend, "device": "emulated"},
        workers=2,
        budget={"seconds": 0.3},
        algorithm={"name": "asgd", "n_sync": 1000},
    )
    assert summary["makespan_s"] == pytest.approx(0.3, rel=1e-6 if backend == "sim" else 1e-2)
    assert summary["minibatches"] == 0, "a round that is not over when the run ends is not counted"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_training_error_that_comes_with_the_pushes_ends_the_run(tmp_path: Path, backend: str) -> None:
    summary = run(
        tmp_path / "run",
        backend=backend,
        workers=2,
        task=DIGITS,
        budget={"target_error": 0.3, "target_window": 10, "minibatches": 3000},
    )
    assert 10 <= summary["minibatches"] < 3000
    assert summary["final"]["train_error"] < 0.4


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_evaluations_cover_the_server_and_every_replica(tmp_path: Path, backend: str) -> None:
    run(
        tmp_path / "run",
        backend=backend,
        workers=2,
        task=DIGITS,
        evaluate={"every_minibatches": 10, "parameters": ["server", "replicas"]},
    )
    evals = tables.read(tmp_path / "run", "evals")
    assert set(evals["parameters"]) == {"server", "replica-0", "replica-1"}
    server = evals.query("parameters == 'server' and split == 'test' and metric == 'error'")
    assert server["minibatches"].tolist()[0] == 0
    assert server["minibatches"].tolist()[-1] == 40
    assert server["value"].iloc[-1] < server["value"].iloc[0]
