"""Bad data are told at validate in one line with file, line and key, whatever the task reads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab.errors import ScenarioError
from tests.backends.scenarios import scenario
from tests.cli.harness import asgd_lab
from tests.tasks.bad_data import BAD, SMALL, Bad, arrays, tree
from tests.whole import sample

SCENARIO = """\
name: bad
task: {TASK}
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {minibatches: 8}
backend: inline
"""


@pytest.mark.parametrize("case", sample(BAD, 24), ids=lambda case: case.id)
def test_bad_data_end_with_status_2_and_one_line(tmp_path: Path, case: Bad) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    case.make(folder)
    keys = case.task.replace("OPTIONS", SMALL).replace("FOLDER", str(folder))
    keys += "" if "data_folder" in keys else f", data_folder: {folder}"
    path = tmp_path / "bad.yaml"
    path.write_text(SCENARIO.replace("TASK", keys))
    said = asgd_lab("validate", path)
    assert (said.status, said.err.count("\n"), said.out) == (2, 1, ""), said
    line = 4 if case.key == "workers" else 2
    assert said.err.startswith(f"{path}:{line}: {case.key}"), said.err
    assert case.words in said.err


def test_images_of_different_sizes_are_no_fault(tmp_path: Path) -> None:
    tree(sizes=True)(tmp_path)
    task = f"name: classification, batch_size: 2, dataset: image-folder, model: lenet, dataset_options: {SMALL}"
    path = tmp_path / "good.yaml"
    path.write_text(SCENARIO.replace("TASK", f"{task}, data_folder: {tmp_path}"))
    assert asgd_lab("validate", path).status == 0


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """No file is read by the rights of root inside."""
    libc = ctypes.CDLL(None)
    if os.geteuid() == 0:
        libc.setfsuid(65534)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            libc.setfsuid(0)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own is the user's alone."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


TEXT = {"name": "text", "context": 8, "width": 8, "layers": 1, "heads": 2}
OF_ARRAYS = {"name": "classification", "dataset": "numpy"}
CLOSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "classification", "dataset": "csv", "dataset_options": {"file": "t.csv"}}, "t.csv"),
    (OF_ARRAYS, "train_images.npy"),
    (TEXT, "a.txt"),
    (TEXT, "below"),
    ({**TEXT, "tokens": "t.bin"}, "t.bin"),
    ({**TEXT, "tokenizer": "t.json"}, "t.json"),
    ({"name": "classification", "dataset": "image-folder"}, "train"),
]


@pytest.mark.parametrize(("task", "closed"), CLOSED, ids=lambda each: each if isinstance(each, str) else "")
def test_data_that_may_not_be_read_are_told_in_one_line(place: Path, task: dict[str, Any], closed: str) -> None:
    arrays()(place)
    tree()(place)
    (place / "below").mkdir()
    for name in ("a.txt", "below/b.txt", "t.csv", "t.json"):
        (place / name).write_text("x,y\n" + "1.5,0\n2,1\n" * 40)
    np.zeros(900, np.uint16).tofile(place / "t.bin")
    keys = {**task, "data_folder": str(place)}
    if "tokenizer" in keys:
        keys["tokenizer"] = str(place / "t.json")
    config = scenario(task=keys, backend="inline", workers=2).task
    with contextlib.suppress(ScenarioError):
        config.load()  # what it imports may lie in a folder of the user's, too
    (place / closed).chmod(0)
    try:
        with without_rights(), pytest.raises(ScenarioError, match=f"{closed}.*ermission denied") as caught:
            config.load()
    finally:
        (place / closed).chmod(0o755)
    assert "\n" not in str(caught.value)
