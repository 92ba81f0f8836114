"""A mistake in Python is one line with the mapping's subscripts, the fault, and the allowed values."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import asgd_lab
from asgd_lab.request import Request, document_of
from asgd_lab.scenario import Document
from tests.api.scenarios import BOWL


def changed(**parts: Any) -> dict[str, Any]:
    return {**BOWL, **parts}


CYCLE: dict[str, Any] = {"name": "x"}
CYCLE["task"] = CYCLE
LIST_CYCLE: list[Any] = []
LIST_CYCLE.append(LIST_CYCLE)
WIDE: Any = []
for _ in range(30):
    WIDE = [WIDE] * 10  # 10^30 lists, of 30 objects
TASK = 'scenario["task"]'
CURVATURE = {"name": "quadratic", "noise": 0.1}

MISTAKES = {
    "an unknown key": (changed(wokers=2), "scenario[\"wokers\"]: unknown key; did you mean 'workers'?"),
    "an unknown key inside": (changed(task={**BOWL["task"], "nois": 1.0}), f'{TASK}["nois"]: unknown key'),
    "a missing key": ({key: BOWL[key] for key in BOWL if key != "task"}, f"{TASK}: is missing"),
    "an empty mapping": ({}, 'scenario["name"]: is missing'),
    "text for a number": (changed(workers="2"), 'scenario["workers"]: must be a whole number, at least 1'),
    "a truth value for a number": (changed(workers=True), 'scenario["workers"]: must be a whole number'),
    "nan": (changed(task={**CURVATURE, "curvature": [math.nan]}), f'{TASK}["curvature"][0]: must be finite'),
    "an infinity of numpy": (
        changed(task={**CURVATURE, "curvature": np.array([1, np.inf])}),
        f'{TASK}["curvature"][1]:',
    ),
    "a set": (changed(sweep={"workers": {1, 2}}), 'scenario["sweep"]["workers"]: must be plain data'),
    "bytes": (changed(name=b"bowl"), 'scenario["name"]: must be plain data'),
    "a complex number": (changed(seed=1j), 'scenario["seed"]: must be plain data'),
    "an array of complex numbers": (changed(seed=np.array([1j])), 'scenario["seed"][0]: must be plain data'),
    "a generator": (changed(sweep={"workers": (each for each in (1, 2))}), 'scenario["sweep"]["workers"]: must be'),
    "an object": (changed(task=object()), f"{TASK}: must be plain data"),
    "a dtype": (changed(backend={"name": "sim", "device": torch.float32}), 'scenario["backend"]["device"]: must be'),
    "a key that is a number": (changed(sweep={1: [1]}), 'scenario["sweep"]: has a key that is not text: 1'),
    "a key that is a tuple": (changed(task={("a",): 1}), f"{TASK}: has a key that is not text: a tuple"),
    "a mapping in itself": (CYCLE, 'scenario["task"]["task"]["task"]: is nested too deeply, or contains itself'),
    "a list in itself": (changed(sweep={"workers": LIST_CYCLE}), 'scenario["sweep"]["workers"][0]: is nested too'),
    "countless lists": (changed(sweep={"workers": WIDE}), "scenario: has more than 1,000,000 characters"),
    "a large array": (
        changed(task={**CURVATURE, "curvature": np.zeros(3_000_000)}),
        f'{TASK}["curvature"]: has 3,000,000',
    ),
    "a huge number": (changed(seed=10**400), 'scenario["seed"]: has more than 300 digits'),
    "lone surrogates": (changed(description="\ud800"), 'scenario["description"]: is text that UTF-8 cannot hold'),
    "a key with a quote": (changed(**{'a"b': 1}), 'scenario["a\\"b"]: unknown key'),
    "a wrong value in a list": (
        changed(sweep={"workers": [1, 0]}),
        'scenario["sweep"]["workers"]: at workers=0: must',
    ),
    "no sweep": (changed(sweep={"workers": []}), 'scenario["sweep"]["workers"]: must be a list'),
    "a contradiction": (
        changed(algorithm={"name": "asgd", "n_sync": 1, "n_push": 2}),
        'scenario["algorithm"]["n_push"]: cannot stand beside n_sync',
    ),
    "a bare name": (changed(algorithm="asdg"), 'scenario["algorithm"]: must be'),
    "a number": (5, "scenario: must be a path, the name of a scenario, a mapping or a Scenario; got a int"),
    "nothing": (None, "scenario: must be a path, the name of a scenario, a mapping or a Scenario"),
    "a list": ([BOWL], "scenario: must be a path, the name of a scenario, a mapping or a Scenario"),
    "no file": ("nowhere.yaml", "nowhere.yaml: no such file"),
    "no name of a file": ("a\0b", "is not the name of a file"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_wrong_scenario_is_told_in_one_line_with_its_place(kind: str) -> None:
    scenario, words = MISTAKES[kind]
    with pytest.raises(asgd_lab.ScenarioError) as raised:
        Request.of(scenario)
    lines = raised.value.args
    assert words in lines[0]
    assert all("\n" not in line and "--" not in line for line in lines)


CHANGES = {
    "an unknown key": ({"algorithm.n_snyc": 2}, 'changes["algorithm.n_snyc"]: unknown key'),
    "a wrong type": ({"workers": "2"}, 'changes["workers"]: must be a whole number'),
    "a wrong value inside": (
        {"task": {"name": "quadratic", "curvature": [1.0], "noise": -1.0}},
        'changes["task"]: task.noise:',
    ),
    "no place": ({"workers.x": 2}, 'changes["workers.x"]: cannot be set'),
    "an object": ({"task.noise": object()}, 'changes["task.noise"]: must be plain data'),
    "an object inside": ({"task": {"name": {1}}}, 'changes["task"]["name"]: must be plain data'),
    "several values": ({"workers": [1, 2]}, '; for a run of each, changes={"sweep.workers": [1,2]}'),
    "an empty key": ({"": 1}, "changes['']: must be a dotted key"),
    "an empty part": ({"algorithm..n_sync": 1}, "must be a dotted key of a scenario"),
    "a number as key": ({1: 1}, "changes[1]: must be a dotted key of a scenario"),
    "a deep key": ({".".join("a" * 60): 1}, "must be a dotted key of a scenario"),
    "a list": ([("workers", 2)], "changes: must be a mapping of dotted keys"),
    "a required key removed": ({"task": None}, 'changes["task"]: is missing'),
    "an item removed": ({"task.curvature.0": None}, 'changes["task.curvature.0"]: cannot be removed'),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_wrong_change_is_told_in_one_line_with_its_key(kind: str) -> None:
    changes, words = CHANGES[kind]
    with pytest.raises(asgd_lab.ScenarioError) as raised:
        Request.of(BOWL, changes)  # type: ignore[arg-type]
    assert words in raised.value.args[0]
    assert "--" not in str(raised.value)


def test_a_file_keeps_its_line_and_a_change_its_key(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\ntask: {name: timing, size_bytes: 1, step_s: 1}\nalgorithm: {name: asgd, n_sync: 0}\n")
    with pytest.raises(asgd_lab.ScenarioError) as raised:
        Request.of(path, {"workers": 0})
    first, second, third = raised.value.args
    assert first.startswith('changes["workers"]: must be')
    assert second.startswith(f"{path}:1: budget: is missing")
    assert third.startswith(f"{path}:3: algorithm.n_sync: must be")


PLAIN = {
    "numpy's numbers": ({"seed": np.int64(3), "workers": np.uint8(2)}, {"seed": 3, "workers": 2}),
    "an array": ({"sweep": {"workers": np.array([1, 2])}}, {"sweep": {"workers": [1, 2]}}),
    "a tensor": (
        {"task": {"curvature": torch.tensor([1.0, 4.0], requires_grad=True)}},
        {"task": {"curvature": [1.0, 4.0]}},
    ),
    "a range": ({"sweep": {"seed": range(3)}}, {"sweep": {"seed": [0, 1, 2]}}),
    "a tuple": ({"task": {"curvature": (1.0, 4.0)}}, {"task": {"curvature": [1.0, 4.0]}}),
    "a device": ({"backend": {"device": torch.device("cpu")}}, {"backend": {"device": "cpu"}}),
    "a path": ({"task": {"data_folder": Path("data")}}, {"task": {"data_folder": "data"}}),
    "a fraction": ({"task": {"noise": Fraction(1, 4)}}, {"task": {"noise": 0.25}}),
    "a truth value of numpy": ({"backend": {"deterministic": np.bool_(True)}}, {"backend": {"deterministic": True}}),
    "a part of a scenario": (
        {"algorithm": asgd_lab.Scenario.model_validate(BOWL).algorithm},
        {"algorithm": BOWL["algorithm"]},
    ),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_values_with_a_plain_form_are_converted(kind: str) -> None:
    given, plain = PLAIN[kind]
    assert document_of(given)._data == plain
    assert repr(document_of(given)._data) == repr(plain)


def test_a_scenario_of_a_mapping_reads_back_from_its_file(tmp_path: Path) -> None:
    """Text that YAML must escape included."""
    texts = ["a\x00b", "\u2028", "- x", "", "\t", "1e3", "null", "#", "\U0001f600", "a: b\n"]
    for text in texts:
        (point,) = Request.of({**BOWL, "description": text}).points
        path = tmp_path / "scenario.yaml"
        path.write_text(Document.dump(point.scenario), encoding="utf-8")
        assert Document.read(path).points()[0].scenario == point.scenario


ARGUMENTS: dict[str, tuple[Any, str]] = {
    "a swept scenario": (
        lambda: asgd_lab.run({**BOWL, "sweep": {"workers": [1, 2]}}),
        'scenario["sweep"]: makes 2 runs',
    ),
    "no sweep": (lambda: asgd_lab.sweep(BOWL), 'scenario["sweep"]: is missing; give lists of values'),
    "a folder in use": (lambda: asgd_lab.run(BOWL, out=os.curdir), "out: . is not empty; choose another"),
    "resume without out": (lambda: asgd_lab.run(BOWL, resume=True), "resume: needs out, the directory to go on in"),
    "no jobs": (lambda: asgd_lab.sweep(BOWL, {"sweep.seed": [1]}, jobs=0), "jobs: must be a whole number, at least 1"),
    "seeds and a sweep of seeds": (
        lambda: asgd_lab.sweep(BOWL, {"sweep.seed": [1, 2]}, seeds=2),
        'changes["sweep.seed"]: cannot stand beside seeds',
    ),
    "too many seeds": (lambda: asgd_lab.sweep(BOWL, seeds=10**6), "seeds: makes 1,000,000 runs"),
    "no repeats": (lambda: asgd_lab.compare(BOWL, repeats=0), "repeats: must be a whole number, at least 1"),
    "a comparison of a simulation": (lambda: asgd_lab.compare(BOWL), 'scenario["backend"]: compare measures'),
    "no scenarios": (lambda: asgd_lab.compare([]), "scenario: is an empty list"),
    "no run": (lambda: asgd_lab.Run.open("nowhere"), "nowhere: is not a run directory"),
    "no run to repeat": (lambda: asgd_lab.replay("nowhere"), "nowhere: is not a run directory"),
    "no comparison": (lambda: asgd_lab.Comparison.open("nowhere"), "nowhere: is not the directory of a comparison"),
    "no preset": (lambda: asgd_lab.preset("h20-node"), "there is no preset 'h20-node'; did you mean 'h200-node'?"),
    "a task that cannot be built": (
        lambda: asgd_lab.run({**BOWL, "task": {"name": "classification", "dataset": "digits", "model": "nowhere:f"}}),
        'scenario["task"]["model"]: ',
    ),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_a_wrong_argument_is_told_in_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    call, words = ARGUMENTS[kind]
    with pytest.raises(asgd_lab.ScenarioError) as raised:
        call()
    assert words in raised.value.args[0]
    assert "--" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
