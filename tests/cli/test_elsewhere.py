"""A record says where everything was, and what: it is repeated from any folder, and changed inputs are noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from asgd_lab.record.run import mark
from asgd_lab.record.saved_model import final_params
from tests.whole import sample

from .harness import QUADRATIC, Said, asgd_lab, finish, start

OWN = """\
name: own
task:
  name: classification
  dataset: "own_parts:data"
  dataset_options: {file: numbers.txt}
  model: "own_parts:net"
  optimizer: {name: SGD, lr: 0.1}
  batch_size: 4
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {minibatches: 12}
backend: BACKEND
hardware: {compute: {step_s: 0.01}}
"""
PARTS = """\
import torch
import own_helper
def data(file):
    count = int(open(file).read())
    g = torch.Generator().manual_seed(count)
    x, y = torch.randn(40, 1, 2, 2, generator=g), torch.randint(3, (40,), generator=g)
    return {"train_images": x[:30], "train_labels": y[:30], "test_images": x[30:], "test_labels": y[30:]}
def net(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, num_classes))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder in which the user works, with an empty one beside it."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (home / "own_parts.py").write_text(PARTS)
    (home / "own_helper.py").write_text("scale = 1\n")
    (home / "numbers.txt").write_text("7\n")
    return home


def call(*arguments: str | Path, folder: Path) -> Said:
    """In a process of its own: what is imported once stays."""
    return finish(start(*arguments, folder=folder))


@pytest.mark.parametrize("backend", sample(["sim", "process"], 1))
def test_a_run_of_the_users_own_code_is_repeated_from_elsewhere(home: Path, backend: str) -> None:
    (home / "own.yaml").write_text(OWN.replace("BACKEND", backend))
    said = call("run", "own.yaml", "--trust", "--out", "out", folder=home)
    assert said.status == 0, said
    manifest = json.loads((home / "out" / "manifest.json").read_text())
    assert set(manifest["inputs"]["code"]) == {"own_parts", "own_helper"}
    elsewhere = home.parent / "elsewhere"
    (elsewhere / "own_parts.py").write_text("raise SystemExit('a stranger ran')")
    said = call("replay", "../home/out", folder=elsewhere)
    assert said.status == 0, said
    assert "has changed" not in said.out
    (home / "own_helper.py").write_text("scale = 2\n")
    said = call("replay", "../home/out", folder=elsewhere)
    assert said.status == 0, said
    assert f"the source of own_helper, {home}/own_helper.py, has changed since" in " ".join(said.out.split())
    again = call("run", "own.yaml", "--trust", "--out", "out", "--resume", folder=home)
    *warnings, line = again.err.splitlines()
    assert again.status == 2
    assert "own_helper" in line
    assert all(each.startswith("warning: ") for each in warnings)
    (home / "own_helper.py").write_text("scale = 1\n")
    (home / "numbers.txt").write_text("8\n")
    said = call("replay", "../home/out", folder=elsewhere)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert "task.dataset: the data have changed since" in said.err


def test_a_strangers_record_imports_nothing_unasked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "own.yaml").write_text(OWN.replace("BACKEND", "sim"))
    assert call("run", "own.yaml", "--trust", "--out", "out", folder=home).status == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(home.parent / "of somebody else"))
    said = call("replay", "out", folder=home)
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "--trust" in said.err


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that started from another one's end, in tmp_path/home; the current directory is beside it."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(home)
    Path("first.yaml").write_text(QUADRATIC)
    Path("then.yaml").write_text(QUADRATIC + "warm_start: {run: first}\n")
    assert asgd_lab("run", "first.yaml", "--out", "first").status == 0
    assert asgd_lab("run", "then.yaml", "--out", "then").status == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


def test_a_warm_start_is_found_from_elsewhere_though_another_run_has_its_name(started: Path) -> None:
    Path("first.yaml").write_text(QUADRATIC.replace("seed: 3", "seed: 4"))
    assert asgd_lab("run", "first.yaml", "--out", "first").status == 0
    said = asgd_lab("replay", started / "then")
    assert said.status == 0, said


@pytest.mark.parametrize("change", ["another run", "gone"])
def test_a_warm_start_that_is_not_what_it_was_is_named(started: Path, change: str) -> None:
    shutil.rmtree(started / "first")
    if change == "another run":
        (started / "first.yaml").write_text(QUADRATIC.replace("seed: 3", "seed: 4"))
        assert asgd_lab("run", started / "first.yaml", "--out", started / "first").status == 0
    for command in (["replay", started / "then"],
                    ["run", started / "then.yaml", "--out", started / "then", "--resume",
                     "--set", f"warm_start.run={started / 'first'}"]):  # fmt: skip
        said = asgd_lab(*command)
        assert (said.status, said.err.count("\n")) == (2, 1), said
        assert "first" in said.err


def test_a_warm_start_that_was_moved_is_the_same_run(started: Path) -> None:
    (started / "first").rename(started / "renamed")
    assert final_params(started / "renamed").size
    then = started / "then"
    moved = f"warm_start.run={started / 'renamed'}"
    said = asgd_lab("run", started / "then.yaml", "--out", then, "--resume", "--set", moved)
    assert said.status == 0, said
    assert "is done already" in said.out
    mark(then, "interrupted")
    assert asgd_lab("run", started / "then.yaml", "--out", then, "--resume", "--set", moved).status == 0
