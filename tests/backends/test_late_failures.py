"""What a user's code raises in the middle or at the end of a run is one line, and loses nothing that was learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab.backends.run import execute
from asgd_lab.errors import RunFailed
from asgd_lab.record import tables
from asgd_lab.record.run import read_manifest, read_summary
from asgd_lab.record.saved_model import final_params
from tests.backends.late import LIMIT
from tests.backends.scenarios import DIGITS, scenario

BACKENDS = ["inline", "sim", "process"]


def late(when: str, backend: str, **parts: Any) -> Any:
    task = DIGITS | {"model": "tests.backends.late:Late", "model_options": {"when": when}, "train_samples": 64}
    task |= {"loss": "tests.backends.late:loss", "optimizer": {"name": "SGD", "lr": 0.01}}
    return scenario(backend=backend, task=task, algorithm={"name": "sgd", "n_sync": 1}, **parts)


def check_what_is_kept(out: Path, failure: str, traceback_in: str) -> None:
    assert "\n" not in failure
    assert read_manifest(out)["status"] == "failed"
    assert read_summary(out)["failure"] == failure
    assert np.isfinite(final_params(out)).all()
    assert "Traceback" in (out / "logs" / traceback_in).read_text()
    assert len(tables.read(out, "minibatches")) >= LIMIT


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_evaluation_that_fails_at_the_end_keeps_parameters_and_tables(tmp_path: Path, backend: str) -> None:
    with pytest.raises(RunFailed, match=r"^evaluation failed: ValueError: too late while in evaluation") as caught:
        execute(late("evaluation", backend, budget={"minibatches": 2 * LIMIT}), tmp_path / "run")
    check_what_is_kept(tmp_path / "run", str(caught.value), "run.log")
    assert read_summary(tmp_path / "run")["minibatches"] == 2 * LIMIT


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_an_evaluation_that_fails_on_the_way_keeps_parameters_and_tables(tmp_path: Path, backend: str) -> None:
    stated = late(
        "evaluation", backend, budget={"minibatches": 3 * LIMIT}, evaluate={"every_minibatches": LIMIT}, record="all"
    )
    with pytest.raises(RunFailed, match=r"^evaluation failed: ValueError: too late") as caught:
        execute(stated, tmp_path / "run")
    check_what_is_kept(tmp_path / "run", str(caught.value), "run.log")
    assert len(tables.read(tmp_path / "run", "evals")), "what was evaluated before is kept"


@pytest.mark.parametrize("backend", ["inline", "sim"])
def test_a_minibatch_that_fails_ends_the_run_with_its_worker_and_cause(tmp_path: Path, backend: str) -> None:
    with pytest.raises(
        RunFailed, match=r"^worker 0: minibatch 2\d failed: ValueError: too late while in training"
    ) as caught:
        execute(late("training", backend, budget={"minibatches": 3 * LIMIT}), tmp_path / "run")
    check_what_is_kept(tmp_path / "run", str(caught.value), "run.log")


@pytest.mark.parametrize("on_death", ["restart", "continue", "stop"])
def test_when_all_processes_have_failed_their_cause_is_told_and_the_parameters_are_kept(
    tmp_path: Path, on_death: str
) -> None:
    stated = late("training", "process", budget={"minibatches": 3 * LIMIT}, faults={"on_death": on_death})
    with pytest.raises(RunFailed, match="failed: ValueError: too late while in training and a second line") as caught:
        execute(stated, tmp_path / "run")
    check_what_is_kept(tmp_path / "run", str(caught.value), "worker-0.log")


def test_a_warm_start_that_fails_says_so(tmp_path: Path) -> None:
    stated = late("training", "sim", budget={"minibatches": 5}, warm_start={"minibatches": 2 * LIMIT})
    with pytest.raises(RunFailed, match=r"^the warm start's minibatch 2\d failed: ValueError"):
        execute(stated, tmp_path / "run")
    assert read_manifest(tmp_path / "run")["status"] == "failed"
