"""Runs that are interrupted and go on: to the bit the same where one worker computes, and repeatable always."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, checkpoints, tables
from asgd_lab.record.run import read_summary
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Document, Scenario
from tests import warm
from tests.whole import WHOLE, sample

from .chaos import members
from .scenarios import DIGITS, QUADRATIC, scenario

ALGORITHMS: dict[str, dict[str, Any]] = {
    "asgd": {"name": "asgd", "n_sync": 3},
    "fetch more often": {"name": "asgd", "n_fetch": 3, "n_push": 5},
    "push more often": {"name": "asgd", "n_fetch": 7, "n_push": 2},
    "gradients": {"name": "asgd", "n_fetch": 3, "n_push": 4, "push": "gradient", "rule": [{"name": "adadelta"}]},
    "downpour": {"name": "downpour", "n_fetch": 4, "n_push": 6, "depth": 2},
    "momentum": {"name": "asgd", "n_sync": 2, "rule": [{"name": "momentum", "beta": 0.5}]},
    "error feedback": {"name": "asgd", "n_sync": 2, "codec": {"name": "tests.outside.top_k:TopK", "share": 0.3}},
    "kept pushes": {"name": "tests.outside.fedbuff:FedBuff", "n_sync": 2, "k": 3, "rule": ["add"]},
}


def checkpointed(every_updates: int, **parts: Any) -> Scenario:
    backend = {"name": "process", "checkpoint": {"every_updates": every_updates}}
    return scenario(**{"backend": backend, "budget": {"minibatches": 4000}, **parts})


def until(version: int) -> Any:
    """A watch that interrupts as soon as there is a checkpoint and this version."""

    def watch(progress: Progress) -> None:
        if progress.version >= version:
            raise KeyboardInterrupt

    return watch


def interrupted(stated: Scenario, out: Path, version: int) -> None:
    assert execute(stated, out, until(version))["status"] == "interrupted"
    assert checkpoints.newest(out) is not None


SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.9}
ADAM = {"name": "Adam", "lr": 0.01}


@pytest.mark.parametrize(("name", "optimizer"), list(zip(ALGORITHMS, itertools.cycle([SGD, ADAM]), strict=False)))
def test_one_worker_interrupted_and_resumed_gives_the_bits_of_one_that_was_not(
    tmp_path: Path, name: str, optimizer: dict[str, Any]
) -> None:
    stated = checkpointed(50, task=QUADRATIC | {"optimizer": optimizer}, algorithm=ALGORITHMS[name])
    execute(stated, tmp_path / "whole")
    interrupted(stated, tmp_path / "parts", 120)
    summary = execute(stated, tmp_path / "parts", resume=True)
    assert summary["status"] == "done"
    assert summary["startup_s"] > 0
    assert read_summary(tmp_path / "parts") == atomic_files.read_json(tmp_path / "parts" / "summary.json")
    assert final_params(tmp_path / "parts").tobytes() == final_params(tmp_path / "whole").tobytes()
    verdict = repeat(stated, tmp_path / "parts")
    assert verdict.difference is None
    assert verdict.final
    ours, theirs = (tables.read(tmp_path / each, "minibatches") for each in ("parts", "whole"))
    assert ours[["step", "loss"]].equals(theirs[["step", "loss"]]), "no minibatch is missing from the tables, or twice"


@pytest.mark.parametrize("algorithm", [
    {"name": "sync_sgd", "n_sync": 2}, {"name": "ssp", "n_sync": 2, "bound": 1}, ALGORITHMS["downpour"],
], ids=lambda value: value["name"])  # fmt: skip
def test_several_workers_resume_more_than_once_without_a_gap(tmp_path: Path, algorithm: dict[str, Any]) -> None:
    stated = checkpointed(40, algorithm=algorithm, workers=3, budget={"minibatches": 9000})
    interrupted(stated, tmp_path / "run", 100)
    assert execute(stated, tmp_path / "run", until(300), resume=True)["status"] == "interrupted"
    summary = execute(stated, tmp_path / "run", resume=True)
    assert summary["status"] == "done"
    assert summary["minibatches"] == 9000
    effects = tables.read(tmp_path / "run", "effects")
    versions = effects[(effects["kind"] == "apply") & (effects["version"] > 0)]["version"].unique()
    assert sorted(versions.tolist()) == list(range(1, summary["updates"] + 1))
    assert repeat(stated, tmp_path / "run").difference is None
    assert not (tmp_path / "run" / "parts").exists()


@settings(max_examples=60 if WHOLE else 3)
@given(
    name=st.sampled_from(sorted(ALGORITHMS)),
    workers=st.integers(1, 3),
    every=st.integers(5, 60),
    points=st.lists(st.integers(10, 400), min_size=1, max_size=3, unique=True).map(sorted),
    optimizer=st.sampled_from([SGD, ADAM]),
    kills=st.booleans(),
)
def test_it_does_not_matter_where_a_run_is_interrupted(
    tmp_path_factory: pytest.TempPathFactory, name: str, workers: int, every: int, points: list[int],
    optimizer: dict[str, Any], kills: bool,
) -> None:  # fmt: skip
    """Several times, anywhere, with workers and servers dying in between: no version is missing, and all repeats."""
    folder = tmp_path_factory.mktemp("drawn")
    more: dict[str, Any] = {}
    if kills:
        fault = {"name": "server_down", "at_s": 0.1, "for_s": 0.05}
        more["faults"] = {"schedule": [fault, {"name": "kill", "worker": workers - 1, "at_s": 0.2, "repair_s": 0.05}]}
    stated = checkpointed(every, task=QUADRATIC | {"optimizer": optimizer}, algorithm=ALGORITHMS[name],
                          workers=workers, **more)  # fmt: skip
    out = folder / "parts"
    for number, point in enumerate(points):
        if execute(stated, out, until(point), resume=number > 0)["status"] == "done" or not checkpoints.all_of(out):
            break
    if read_summary(out)["status"] != "done":
        assume(checkpoints.all_of(out))
        assert execute(stated, out, resume=True)["status"] == "done"
    verdict = repeat(stated, out)
    assert verdict.difference is None
    assert verdict.final
    effects = tables.read(out, "effects")
    versions = effects[(effects["kind"] == "apply") & (effects["version"] > 0)]["version"]
    made = versions.unique() if name == "kept pushes" else versions  # several of those make one
    assert sorted(made) == list(range(1, verdict.versions + 1))
    if workers == 1 and not kills:
        execute(stated, folder / "whole")
        assert final_params(out).tobytes() == final_params(folder / "whole").tobytes()


def test_a_run_whose_every_process_is_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    """By the command, as after a power failure: the parent dies with all the others."""
    file, out = tmp_path / "case.yaml", tmp_path / "run"
    file.write_text(Document.dump(checkpointed(30, workers=2, budget={"minibatches": 6000})), encoding="utf-8")
    command = ("run", file, "--out", out)
    with warm.Program(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        while checkpoints.newest(out) is None:
            assert parent.poll() is None
            time.sleep(0.01)
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGKILL)
        for child in children:
            child.kill()
    psutil.wait_procs(children, timeout=60)
    done = warm.run((*command, "--resume"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from version" in done.stdout
    replayed = warm.run(("replay", out), cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    assert "the final parameters are the same bits" in " ".join(replayed.stdout.split())


def test_only_the_newest_checkpoints_are_kept_and_they_hold_no_code(tmp_path: Path) -> None:
    stated = checkpointed(20, task=DIGITS, budget={"updates": 200}, workers=2)
    execute(stated, tmp_path / "run")
    kept = checkpoints.all_of(tmp_path / "run")
    assert len(kept) == 2
    assert int(kept[-1].name) >= 160
    for path in kept:
        for each in path.glob("*.npz"):
            with np.load(each, allow_pickle=False) as arrays:  # refuses objects
                assert all(arrays[name].dtype != object for name in arrays.files)
    assert not (tmp_path / "run" / checkpoints.FOLDER / checkpoints.UNFINISHED).exists()


def test_a_server_killed_while_workers_save_loses_nothing(tmp_path: Path) -> None:
    backend = {"name": "process", "checkpoint": {"every_s": 0.05}}
    stated = scenario(backend=backend, workers=3, budget={"seconds": 4.0}, faults={"on_death": "restart"})
    killed: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.version > 3 and (not killed or time.monotonic() - killed[-1] > 0.5):
            for process in members("server"):
                process.kill()
                killed.append(time.monotonic())

    summary = execute(stated, tmp_path / "run", watch)
    assert 2 < summary["faults"]["servers"] <= len(killed), "the last one may have been at its end"
    assert checkpoints.newest(tmp_path / "run") is not None
    assert repeat(stated, tmp_path / "run").difference is None


def test_a_run_starts_from_another_runs_end_or_checkpoint(tmp_path: Path) -> None:
    first = checkpointed(100, task=QUADRATIC, algorithm=ALGORITHMS["asgd"], workers=2)
    execute(first, tmp_path / "run")
    older, newer = checkpoints.all_of(tmp_path / "run")
    saved = {path: checkpoints.read(path, "server")["params"].tobytes() for path in (older, newer)}
    assert saved[older] != saved[newer]

    def started_from(path: Path) -> bytes:
        stated = scenario(task=QUADRATIC, warm_start={"run": str(path)})
        return initial_parameters(stated, build_task(stated)).numpy().tobytes()

    assert started_from(tmp_path / "run") == final_params(tmp_path / "run").tobytes()
    assert started_from(older) == saved[older]
    (tmp_path / "run" / "checkpoints" / "final.npz").unlink()
    with pytest.raises(ScenarioError, match=r"final\.npz: is missing, and the run wrote it"):
        started_from(tmp_path / "run")
    manifest = atomic_files.read_json(tmp_path / "run" / "manifest.json")
    atomic_files.write_json(
        tmp_path / "run" / "manifest.json", {**manifest, "files": {}}
    )  # as of a run that was killed
    assert started_from(tmp_path / "run") == saved[newer]
    (newer / "state.json").unlink()
    with pytest.raises(ScenarioError, match=r"state\.json: is missing"):
        started_from(tmp_path / "run")


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "absent": lambda content: None,
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "a bit": lambda content: content[: (at := len(content) // 3)] + bytes([content[at] ^ 16]) + content[at + 1 :],
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def damage(path: Path, how: str) -> None:
    after = DAMAGES[how](path.read_bytes())
    if after is None:
        path.unlink()
    else:
        path.write_bytes(after)


CHECKPOINT = ["state.json", "server.npz", "worker-0.npz", "worker-1.npz"]


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path]:
    """A run of two workers with two checkpoints."""
    stated = checkpointed(20, task=QUADRATIC, workers=2)
    run = tmp_path_factory.mktemp("unfinished") / "run"
    interrupted(stated, run, 60)
    assert len(checkpoints.all_of(run)) == 2
    return stated, run


@pytest.mark.parametrize(("name", "how"), sample(itertools.product(CHECKPOINT, DAMAGES), 6))
def test_a_damaged_checkpoint_falls_back_to_the_one_before_it(
    unfinished: tuple[Scenario, Path], tmp_path: Path, name: str, how: str
) -> None:
    stated, run = unfinished[0], Path(shutil.copytree(unfinished[1], tmp_path / "run"))
    older, newer = checkpoints.all_of(run)
    damage(newer / name, how)
    assert checkpoints.newest(run) == older
    assert execute(stated, run, resume=True)["status"] == "done"
    assert repeat(stated, run).difference is None


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["state.json", "server.npz", "worker-0.npz"])
def test_a_resume_that_cannot_begin_leaves_the_run_as_it_was(
    unfinished: tuple[Scenario, Path], tmp_path: Path, name: str, how: str
) -> None:
    stated, run = unfinished[0], Path(shutil.copytree(unfinished[1], tmp_path / "run"))
    for checkpoint in checkpoints.all_of(run):
        damage(checkpoint / name, how)
    before = contents(run)
    with pytest.raises(ScenarioError, match=name.replace(".", r"\.")):
        execute(stated, run, resume=True)
    assert contents(run) == before


def test_a_log_of_events_that_was_cut_is_refused(unfinished: tuple[Scenario, Path], tmp_path: Path) -> None:
    stated, run = unfinished[0], Path(shutil.copytree(unfinished[1], tmp_path / "run"))
    events = run / "events.rows"
    events.write_bytes(events.read_bytes()[:300])
    before = contents(run)
    with pytest.raises(ScenarioError, match=r"events\.rows: is damaged"):
        execute(stated, run, resume=True)
    assert contents(run) == before
