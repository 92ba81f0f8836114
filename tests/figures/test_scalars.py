"""Recorded runs as TensorBoard's files: every scalar is there, with its step and its time."""

from __future__ import annotations

import shutil
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from asgd_lab.record import tables
from asgd_lab.record.run import read_summary
from tests.backends.scenarios import DIGITS, run
from tests.cli.harness import QUADRATIC, asgd_lab

Points = dict[str, list[tuple[int, float, float]]]


def events(path: Path) -> Iterator[Any]:
    """What the file holds: records of a length, its checksum, an event, and its checksum."""
    content, at = path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("Q", content, at)
        yield event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length


def board(out: Path) -> dict[str, Points]:
    """What TensorBoard would show: by folder, of all event files in it, the points of each tag."""
    found: dict[str, Points] = {}
    for path in sorted(out.rglob("*tfevents*")):
        points = found.setdefault(str(path.parent.relative_to(out)), defaultdict(list))
        for event in events(path):
            for value in event.summary.value:
                points[value.tag].append((event.step, event.wall_time, value.simple_value))
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_scalar_of_a_run_is_written(here: Path) -> None:
    out = here / "run"
    run(out, backend="process", task=DIGITS, workers=2, evaluate={"every_minibatches": 20})
    assert asgd_lab("tensorboard", "run", "--out", "board").status == 0
    found = board(here / "board")["run"]
    minibatches = tables.read(out, "minibatches")
    for worker, rows in minibatches.groupby("worker"):
        mine = found[f"workers/loss/{worker}"]
        assert [step for step, _, _ in mine] == rows["step"].tolist()
        assert [loss for _, _, loss in mine] == pytest.approx(rows["loss"].tolist())
        began = read_summary(out)["started_unix_s"]
        assert [time - began for _, time, _ in mine] == pytest.approx(rows["time_s"].tolist(), abs=1e-3)
    assert len(found["staleness"]) == read_summary(out)["updates"]
    assert len(found["test_error/server"]) >= 2


def test_eight_workers_have_a_mean_curve_and_a_group_of_their_own(here: Path) -> None:
    evaluate = {"every_minibatches": 16, "parameters": ["server", "replicas"]}
    run(here / "run", backend="sim", task=DIGITS, workers=8, budget={"minibatches": 80}, evaluate=evaluate,
        algorithm={"name": "sync_sgd", "n_sync": 1}, hardware={"compute": {"step_s": 0.01}})  # fmt: skip
    asgd_lab("tensorboard", "run", "--out", "board")
    found = board(here / "board")["run"]
    evals = tables.read(here / "run", "evals")
    held_out = {f"{split}_{metric}" for split, metric in zip(evals["split"], evals["metric"], strict=True)}
    assert "test_error" in held_out
    assert {tag for tag in found if not tag.startswith("workers/")} == {
        "loss/mean", "error/mean", "staleness", *(f"{name}/server" for name in held_out),
        *(f"{name}/replicas_mean" for name in held_out),
    }  # fmt: skip
    rows = tables.read(here / "run", "minibatches")
    steps, _, losses = zip(*found["loss/mean"], strict=True)
    assert losses == pytest.approx(rows.groupby("step")["loss"].mean().tolist())  # in lock-step: one of each worker
    assert list(steps) == list(range(8, 81, 8))
    replicas = [found[f"workers/test_error/{worker}"] for worker in range(8)]
    means = [sum(point[2] for point in points) / 8 for points in zip(*replicas, strict=True)]
    assert [value for _, _, value in found["test_error/replicas_mean"]] == pytest.approx(means)


def test_a_mean_counts_the_minibatches_that_were_not_recorded(here: Path) -> None:
    run(here / "run", backend="sim", workers=2, budget={"minibatches": 2000}, record="sampled")
    asgd_lab("tensorboard", "run", "--out", "board")
    found = board(here / "board")["run"]["loss/mean"]
    assert len(found) < 30
    assert found[-1][0] > 1500
    assert [step for step, _, _ in found] == sorted(step for step, _, _ in found)


def test_a_sweep_is_written_run_by_run_and_again_without_doubling(here: Path) -> None:
    (here / "bowl.yaml").write_text(QUADRATIC + "sweep: {workers: [1, 2], algorithm.n_sync: [1, 2]}\n")
    assert asgd_lab("run", "bowl.yaml", "--out", "all/bowl", "--jobs", "1").status == 0
    assert asgd_lab("tensorboard", "all", "--out", "board").status == 0
    once = board(here / "board")
    names = {str(path.parent.relative_to(here)) for path in (here / "all").rglob("manifest.json")}
    assert set(once) == names
    assert len(names) == 4
    (one, *_) = names
    for path in ("all/bowl/", one, here / "all", f"all/../{one}/."):  # however the same runs are named
        assert asgd_lab("tensorboard", path, "--out", "board").status == 0
        assert board(here / "board") == once


def test_what_was_made_anew_takes_the_place_of_what_was_before(here: Path) -> None:
    for minibatches in (40, 20):
        shutil.rmtree(here / "run", ignore_errors=True)
        run(here / "run", budget={"minibatches": minibatches})
        assert asgd_lab("tensorboard", "run", "--out", "board").status == 0
    assert len(board(here / "board")["run"]["workers/loss/0"]) == 20


def test_no_two_runs_share_a_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a/b", "a-b", "a_b", "a/b/c", "a b", "a%b", "A-b", "a.b", "größe", "-", "board", "x/a"]
    for seed, name in enumerate(names):
        run(here / name, seed=seed)
    for name in names:
        assert asgd_lab("tensorboard", "--out", "board", "--", name).status == 0
    monkeypatch.chdir(here / "x")  # here `a` is x/a, which has a folder, and so has ../a/b
    assert asgd_lab("tensorboard", "a", here / "a/b", "--out", here / "board").status == 0
    monkeypatch.chdir(here)
    found = board(here / "board")
    assert set(found) == {*names}
    assert {len(points["workers/loss/0"]) for points in found.values()} == {40}
    assert len({points["workers/loss/0"][-1] for points in found.values()}) == len(names)


def test_a_run_has_one_folder_however_it_is_reached(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(here / "runs" / "one", workers=1, budget={"minibatches": 4})
    (here / "link").symlink_to(here / "runs" / "one")
    (here / "runs" / "again").symlink_to("one")
    for folder, path in ((".", "runs/one"), ("runs", "one"), ("/", str(here / "runs" / "one")), (".", "link"),
                         ("runs", "../runs/one/."), (".", "runs")):  # fmt: skip
        monkeypatch.chdir(here / folder)
        assert asgd_lab("tensorboard", path, "--out", here / "board").status == 0
    assert len(list((here / "board").rglob("events*"))) == 1


def test_files_of_somebody_else_stay_and_are_not_mixed_with_ours(here: Path) -> None:
    run(here / "run")
    theirs = here / "board" / "run" / "events.out.tfevents.1700000000.host"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    (theirs.parent / "notes.txt").write_text("mine")
    for _ in range(2):
        assert asgd_lab("tensorboard", "run", "--out", "board").out.endswith("scalars in board/run-2\n")
    assert theirs.read_bytes() == b"theirs"
    assert (theirs.parent / "notes.txt").read_text() == "mine"
    assert [path.name for path in theirs.parent.glob("*tfevents*")] == [theirs.name]
    assert len(list((here / "board").rglob("*tfevents*"))) == 2


@pytest.mark.parametrize("taken", ["board", "board/run", "board/run/events.out.tfevents.0000000000.asgd-lab/x"])
def test_what_cannot_be_written_is_said_in_a_line(here: Path, taken: str) -> None:
    run(here / "run")
    (here / taken).parent.mkdir(parents=True, exist_ok=True)
    (here / taken).write_text("")
    said = asgd_lab("tensorboard", "run", "--out", "board")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert said.err.startswith("--out: board")


def test_a_run_of_a_sweep_that_cannot_be_read_is_told_and_left_out(here: Path) -> None:
    for name in ("one", "two"):
        run(here / "sweep" / name)
    (here / "sweep" / "one" / "summary.json").unlink()
    said = asgd_lab("tensorboard", "sweep", "--out", "board")
    assert said.out.splitlines()[0] == "sweep/one/summary.json: is missing, and the run wrote it"
    assert set(board(here / "board")) == {"sweep/two"}
    assert asgd_lab("tensorboard", "sweep/one", "--out", "board").status == 2


@pytest.mark.parametrize("path", ["nothing", "file", "empty"])
def test_what_holds_no_run_is_refused(here: Path, path: str) -> None:
    (here / "file").write_text("")
    (here / "empty").mkdir()
    said = asgd_lab("tensorboard", path)
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"{path}: ")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    said = asgd_lab("tensorboard", tmp_path)
    assert said.status == 2
    assert said.err == "tensorboard: needs the package tensorboardX: pip install tensorboardX\n"
