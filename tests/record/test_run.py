from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.errors import ScenarioError
from asgd_lab.record import atomic_files, directory_names, machine, run, saved_model, tables
from asgd_lab.record.directory_names import default_directory, file_name
from asgd_lab.record.run import RunDirectory, read_summary
from asgd_lab.record.saved_model import final_params

EFFECT = (0, 100, 0, 0, 1, 0, 0, -1, -1, 4, -1, 0, 1)
SUMMARY = {"backend": "sim", "makespan_s": 1.5, "final": {"test_loss": float("nan"), "test_error": np.float32(0.5)}}
FILES = ["checkpoints", "effects.parquet", "evals.parquet", "manifest.json", "minibatches.parquet"]
FILES += ["scenario.yaml", "summary.json", "trace.json"]


def recorded(path: Path, record: str = "all", status: run.Status = "done") -> Path:
    directory = RunDirectory.create(path, "name: toy\n", record=record, facts={"seed": 3, "backend": "sim"})
    directory.effects.add(EFFECT)
    directory.minibatches.add((0, 1, 5, 0.5, float("nan")))
    directory.evals.add((5, 1, 1, "server", "test", "error", 0.25))
    directory.finish(SUMMARY, status, np.arange(4, dtype=np.float32))
    return path


def test_a_finished_run_has_every_file_and_nothing_else(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a" / "b")
    assert sorted(os.listdir(path)) == FILES
    assert os.listdir(path / "checkpoints") == ["final.npz"]
    assert (path / "scenario.yaml").read_text() == "name: toy\n"
    assert final_params(path).tolist() == [0, 1, 2, 3]
    assert len(tables.read(path, "effects")) == len(tables.read(path, "minibatches")) == 1
    assert json.loads((path / "trace.json").read_text())["traceEvents"]


def test_the_summary_has_its_status_and_null_for_what_is_not_finite(tmp_path: Path) -> None:
    assert atomic_files.read_json(recorded(tmp_path / "run") / "summary.json") == {
        "status": "done",
        "backend": "sim",
        "makespan_s": 1.5,
        "final": {"test_loss": None, "test_error": 0.5},
    }


def test_equal_runs_differ_in_nothing_but_the_manifest(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "one"), recorded(tmp_path / "other")
    for file in sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file()):
        if file.name != "manifest.json":
            assert (one / file).read_bytes() == (other / file).read_bytes(), file


def test_the_manifest_says_where_when_and_with_what(tmp_path: Path) -> None:
    manifest = json.loads((recorded(tmp_path / "run") / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert (manifest["seed"], manifest["backend"]) == (3, "sim")
    assert set(manifest["versions"]) >= {"python", "torch", "numpy", "simpy", "asgd_lab"}
    assert manifest["machine"]["cores"] >= 1
    assert manifest["machine"]["memory_bytes"] > 2**20
    assert set(manifest["machine"]) >= {"cpu", "platform"}
    assert datetime.fromisoformat(manifest["created"]) <= datetime.fromisoformat(manifest["finished"])
    assert "commit" in manifest


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_did_not_end_well_keeps_what_was_recorded(tmp_path: Path, status: run.Status) -> None:
    directory = RunDirectory.create(tmp_path, "name: toy\n")
    directory.effects.add(EFFECT)
    directory.finish({}, status, None)
    assert tables.read(tmp_path, "effects")["round"].tolist() == [100]
    assert read_summary(tmp_path) == {"status": status}
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == status
    with pytest.raises(ScenarioError, match="no final parameters"):
        final_params(tmp_path)


def test_a_part_that_cannot_be_written_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory.create(tmp_path, "name: toy\n")
    directory.minibatches.add((0, 1, 5, 0.5, 0.5))

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(saved_model, "write", fail)
    monkeypatch.setattr("asgd_lab.record.trace.write", fail)
    with pytest.raises(OSError, match="no space left"):
        directory.finish({"seed": 1}, "failed", np.zeros(3, np.float32))
    assert len(tables.read(tmp_path, "minibatches")) == 1
    assert read_summary(tmp_path) == {"status": "failed", "seed": 1}
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(("torn_by", "status"), [(KeyboardInterrupt, "interrupted"), (OSError, "failed")])
def test_a_run_whose_files_could_not_all_be_written_is_not_called_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn_by: type[BaseException], status: str
) -> None:
    directory = RunDirectory.create(tmp_path, "name: toy\n")

    def fail(*_: object) -> None:
        raise torn_by

    monkeypatch.setattr(saved_model, "write", fail)
    with pytest.raises(torn_by):
        directory.finish({}, "done", np.zeros(3, np.float32))
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == status


def test_finishing_again_is_harmless(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path, "name: toy\n")
    directory.finish({}, "done", None)
    directory.finish({}, "done", None)
    assert atomic_files.read_json(tmp_path / "summary.json") == {"status": "done"}


KILLED = """
import sys
from asgd_lab.record.run import RunDirectory
directory = RunDirectory.create(sys.argv[1], "name: toy")
directory.effects.extend([(0, number, 0, 0, 1, 0, 0, -1, -1, 4, -1, 0, 1) for number in range(70_000)])
directory.evals.add((5, 1, 1, "server", "test", "error", 0.25))
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_run_killed_before_it_is_finished_can_be_read(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        finally:
            child.send_signal(signal.SIGKILL)
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "running"
    assert len(tables.read(tmp_path, "effects")) == 70_000
    assert tables.read(tmp_path, "evals")["value"].tolist() == [0.25]
    with pytest.raises(ScenarioError, match=r"is not a finished run; summary\.json is missing"):
        read_summary(tmp_path)


@pytest.mark.parametrize(("record", "rows"), [("all", 1), ("sampled", 1), ("summary", 0)])
def test_a_run_that_records_its_summary_only_keeps_empty_tables_and_its_evaluations(
    tmp_path: Path, record: str, rows: int
) -> None:
    path = recorded(tmp_path / "run", record)
    assert sorted(os.listdir(path)) == FILES
    assert len(tables.read(path, "effects")) == len(tables.read(path, "minibatches")) == rows
    assert len(tables.read(path, "evals")) == 1


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ScenarioError) as refused:
        RunDirectory.create(tmp_path, "name: toy\n")
    assert str(refused.value) == f"--out: {tmp_path} is not empty; choose another"
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_of_two_runs_that_find_a_directory_empty_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path / "run")
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(()))
    with pytest.raises(ScenarioError, match="is not empty; choose another"):
        RunDirectory.create(tmp_path / "run", "name: other\n")
    assert (tmp_path / "run" / "scenario.yaml").read_text() == "name: toy\n"


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ScenarioError, match=r"cannot be used: .*; choose a directory that can be written"):
            RunDirectory.create(path, "name: toy\n")
    with pytest.raises(ScenarioError, match="cannot be used"):
        default_directory("toy", tmp_path / "file")


def test_default_directories_are_named_by_scenario_and_time_and_never_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Clock:
            return cls(2013, 12, 20, 8, 30, 5)

    monkeypatch.setattr(directory_names, "datetime", Clock)
    paths = [default_directory("paper", tmp_path) for _ in range(3)]
    names = ["20131220-083005", "20131220-083005-1", "20131220-083005-2"]
    assert paths == [tmp_path / "paper" / name for name in names]
    assert all(path.is_dir() for path in paths)


@given(names=st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_any_names_become_components_of_a_path_and_stay_apart(names: list[str]) -> None:
    files = [file_name(name) for name in names]
    for file in files:
        assert file not in ("", ".", "..")
        assert "/" not in file
        assert "\0" not in file
        assert len(file.encode()) <= 255
        assert not file.startswith(("-", "."))
    assert files[0] != files[1]


def test_a_plain_sweep_point_keeps_its_name() -> None:
    assert file_name("algorithm.n_sync=10,workers=2") == "algorithm.n_sync=10,workers=2"


def test_the_commit_is_of_this_source_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgd_lab.__file__", str(tmp_path / "__init__.py"))
    commit = machine.commit.__wrapped__
    assert commit() is None
    environment = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "__init__.py").write_text("")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert commit() is None  # in a repository, not of it
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *environment, "commit", "-qm", "one"], check=True)
    clean = commit()
    assert clean is not None
    assert len(clean["id"]) == 40
    assert clean["modified"] is False
    (tmp_path / "__init__.py").write_text("changed = True\n")
    changed = commit()
    assert changed == {"id": clean["id"], "modified": True}
