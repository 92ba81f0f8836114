"""Only what a run writes is ever removed, only by name, and never through a link."""

from __future__ import annotations

import ast
import itertools
import os
from pathlib import Path

import pytest

import asgd_lab
from asgd_lab.backends.run import execute
from asgd_lab.errors import ScenarioError
from asgd_lab.record import removal
from asgd_lab.record.columns import TABLES
from asgd_lab.record.run import mark
from tests.backends.scenarios import scenario

PACKAGE = Path(asgd_lab.__file__).parent
REMOVERS = {"rmtree", "unlink", "rmdir", "remove", "removedirs", "move", "truncate"}
OURS = [
    *("scenario.yaml", "manifest.json", "manifest.json.new", "summary.json", "trace.json", "events.rows"),
    *(f"{name}.parquet{suffix}" for name, suffix in itertools.product(TABLES, ("", ".part", ".new"))),
    *("logs/server.log", "logs/worker-12.log", "logs/run.log"),
    *("parts/server.effects", "parts/worker-3-1.minibatches", "parts/server.distances", "parts/final.npz"),
    *("parts/replica-2.snapshots", "parts/replica-2.17.npy", "parts/server.0.npy"),
    *("checkpoints/final.npz", "checkpoints/000000000030/server.npz", "checkpoints/000000000030/state.json"),
    *("checkpoints/unfinished/worker-0.npz.part", "checkpoints/unfinished/state.json"),
    *("checkpoints/unfinished-17/worker-0.npz.new", "checkpoints/unfinished-17/server.npz"),
]
THEIRS = [
    *("notes.txt", "scenario.yaml.bak", "my.parquet", "manifest.json~", "trace.json.gz", "figures/effects.parquet"),
    *("logs/notes.log", "logs/deep/server.log", "parts/scenario.yaml", "parts/other.npy", "checkpoints/best.npz"),
    *("checkpoints/000000000030/notes.txt", "checkpoints/kept/server.npz", "second/manifest.json"),
]


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def test_a_run_directory_is_cleared_of_the_runs_own_files_and_of_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path / "run", OURS + THEIRS)
    removal.clear(tmp_path / "run")
    assert files(tmp_path / "run") == set(THEIRS)
    fill(tmp_path / "alone", OURS)
    removal.clear(tmp_path / "alone")
    assert os.listdir(tmp_path / "alone") == []


MARKED = '<meta name="generator" content="asgd-lab 1">'


@pytest.mark.parametrize("name", removal.REPORTS)
def test_a_page_is_removed_if_this_program_wrote_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a page of the user's")
    removal.remove_reports(tmp_path)
    assert files(tmp_path) == {name}
    (tmp_path / name).write_text(f"<html>{MARKED}")
    removal.remove_reports(tmp_path)
    assert files(tmp_path) == set()


def test_a_resumed_run_has_no_page_of_what_it_was(tmp_path: Path) -> None:
    stated = scenario(backend="inline", budget={"minibatches": 4})
    execute(stated, tmp_path)
    removal.remove_file(tmp_path, "summary.json")
    mark(tmp_path, "interrupted")
    (tmp_path / "report.html").write_text(MARKED)
    execute(stated, tmp_path, resume=True)
    assert "report.html" not in files(tmp_path)
    assert "summary.json" in files(tmp_path)


def test_one_folder_of_a_run_is_cleared_without_the_others(tmp_path: Path) -> None:
    fill(tmp_path, OURS)
    removal.clear(tmp_path, "checkpoints/unfinished")
    assert files(tmp_path) == {name for name in OURS if not name.startswith("checkpoints/unfinished/")}


@pytest.mark.parametrize("name", ["logs", "parts", "checkpoints", "checkpoints/000000000030", *OURS])
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_a_link_in_the_place_of_anything_of_a_run_is_refused_and_never_followed(
    tmp_path: Path, name: str, target: str
) -> None:
    outside, link = tmp_path / "outside", tmp_path / "run" / name
    fill(outside, [*OURS, "server.log", "state.json", "server.npz"])
    link.parent.mkdir(parents=True)
    link.symlink_to({"file": outside / "scenario.yaml", "folder": outside, "nothing": tmp_path / "absent"}[target])
    with pytest.raises(ScenarioError, match="is a symbolic link, which no run has there; move it elsewhere"):
        removal.check(tmp_path / "run")
    before = files(outside)
    removal.clear(tmp_path / "run")
    assert files(outside) == before
    assert link.is_symlink()


def test_a_link_to_the_run_directory_itself_is_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "run", ["scenario.yaml", "notes.txt"])
    (tmp_path / "link").symlink_to(tmp_path / "run")
    removal.clear(tmp_path / "link")
    assert files(tmp_path / "run") == {"notes.txt"}


def test_a_fifo_or_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.rows")
    with pytest.raises(ScenarioError, match=r"events\.rows: is no plain file"):
        removal.check(tmp_path)
    (tmp_path / "events.rows").unlink()
    (tmp_path / "trace.json").mkdir()
    with pytest.raises(ScenarioError, match=r"trace\.json: is a folder"):
        removal.check(tmp_path)


def removals(source: str) -> list[str]:
    """Every use of a function that removes files, by any of its names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in REMOVERS:
            owner = ast.unparse(node.value)
            if node.attr not in ("remove", "move", "truncate") or owner in ("os", "shutil"):
                found.append(f"{owner}.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            found += [alias.name for alias in node.names if alias.name in REMOVERS]
    return found


def test_one_module_of_the_package_removes_files_and_no_other() -> None:
    found = {
        str(path.relative_to(PACKAGE)): removals(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
    }
    users = {name for name, calls in found.items() if calls}
    assert users == {"record/removal.py"}, found
    assert removals("from shutil import rmtree\nos.remove(x)\npath.unlink()\n[].remove(1)") == [
        "rmtree", "os.remove", "path.unlink",
    ]  # fmt: skip
