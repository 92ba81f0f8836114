"""The facts of data are remembered by the keys that decide which data a task reads: no other key is asked meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab.scenario.tasks import TASKS, Learned
from tests.backends.scenarios import scenario
from tests.tasks.test_csv_files import LINES

NETWORK = {"batch_size": 2, "optimizer": {"name": "SGD", "lr": 0.1}}
CLASSIFICATION = {"name": "classification", **NETWORK}
TEXT = {"name": "text", "context": 4, **NETWORK}
TABLE = {"file": "t.csv", "label": "y", "key": "user"}
CASES: dict[str, dict[str, Any]] = {
    "digits": {**CLASSIFICATION, "dataset": "digits", "train_samples": 20, "data": "sharded"},
    "csv": {**CLASSIFICATION, "dataset": "csv", "dataset_options": TABLE, "data": "by_key"},
    "numpy": {**CLASSIFICATION, "dataset": "numpy", "dataset_options": {"file": "a.npz"}},
    "stories": {**TEXT, "corpus": "stories", "corpus_bytes": 4096},
    "files": {**TEXT, "data": {"name": "by_key", "key": "file"}},
    "tokens": {**TEXT, "tokens": "a.bin", "token_type": "uint16", "vocabulary": 9},
}


def keys_asked(config: Learned) -> set[str]:
    """The keys that the loading of the task's data asks for."""
    asked: set[str] = set()

    class Watched(type(config)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name in type(config).model_fields:
                asked.add(name)
            return super().__getattribute__(name)

    keys = dict(config)
    Watched.model_construct(**keys).load()
    return asked


@pytest.mark.parametrize("case", CASES)
def test_what_is_asked_for_while_data_are_read_is_among_a_tasks_data_keys(case: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n".join(["user,x,y", *LINES]))
    images, labels = np.zeros((8, 3), np.float32), np.arange(8) % 2
    arrays = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(tmp_path / "a.npz", **arrays)
    (np.arange(90, dtype=np.uint16) % 9).tofile(tmp_path / "a.bin")
    for name in "bc":
        (tmp_path / f"{name}.txt").write_text("a text of some length " * 9)
    reads_folder = case not in ("digits", "stories")
    folder = {"data_folder": str(tmp_path)} if reads_folder else {}
    config = scenario(task={**CASES[case], **folder}, workers=2).task
    asked = keys_asked(config)
    assert config.data_keys is not None
    assert asked <= {"name", *config.data_keys}
    assert ("data_folder" in asked) >= reads_folder


@pytest.mark.parametrize("kind", TASKS.ours, ids=lambda kind: kind.__name__)
def test_a_tasks_data_keys_are_keys_of_it(kind: type[Learned]) -> None:
    assert set(kind.data_keys or ()) <= kind.model_fields.keys()
    assert (kind.data_keys is None) or kind.has_data
