"""What does not fit into memory is refused in one line, before it is made."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.harness import asgd_lab
from tests.record.test_cgroups import Tree

SCENARIO = """\
name: large
task: {name: classification, dataset: DATASET, MORE}
algorithm: {name: asgd, n_sync: 2}
budget: {minibatches: 4}
backend: sim
hardware: {compute: {step_s: 0.01}}
"""


@pytest.mark.parametrize(
    ("dataset", "more", "key"),
    [
        ("digits", "model: mlp, model_options: {hidden: [1000000, 1000000]}", "task.model_options"),
        ("digits", "model: small, model_options: {channels: [1000000, 1000000]}", "task.model_options"),
        ("digits", "model: vit_b_16, model_options: {image_size: 160000}", "task.model_options"),
        ("image-folder", "data_folder: ., dataset_options: {resize: 1000000}", "task.dataset_options.resize"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_before_it_is_made(
    tmp_path: Path, dataset: str, more: str, key: str
) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(SCENARIO.replace("DATASET", dataset).replace("MORE", more))
    said = asgd_lab("validate", path)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert said.err.startswith(f"{path}:2: {key}: ")
    assert said.err.endswith(" GB of memory are free\n")


ARRAYS = {f"{split}_{part}": values for split in ("train", "test") for part, values in (
    ("images", np.random.default_rng(0).random((60, 500))), ("labels", np.arange(60) % 2))}  # fmt: skip


def table(folder: Path) -> None:
    (folder / "t.csv").write_text("x,y\n" + "0.5,1\n1.5,0\n" * 3000)


def wide(folder: Path, convert: Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float64]]], object]) -> None:
    for part, values in ARRAYS.items():
        np.save(folder / f"{part}.npy", convert(values) if part.endswith("images") else values)


OF_FILES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "csv": ("csv, dataset_options: {file: t.csv}", "task.dataset_options", table),
    "npz compressed": ("numpy, dataset_options: {file: t.npz}", "task.dataset_options.file",
                       lambda folder: np.savez_compressed(folder / "t.npz", **ARRAYS)),
    "npy of float64": ("numpy", "task.dataset", lambda folder: wide(folder, lambda values: values)),
    "npy of another order": ("numpy", "task.data_folder", lambda folder: wide(folder, lambda each: each.astype(">f4"))),
    "npy of columns": ("numpy", "task.dataset", lambda folder: wide(
        folder, lambda each: np.asfortranarray(each.astype(np.float32)))),
}  # fmt: skip


def of_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: types.SimpleNamespace(available=50_000))


def of_container(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    tree = Tree(folder / "root")
    tree.made("v2", [(None, 10**9 + 50_000)], held=10**9)
    monkeypatch.setattr("asgd_lab.cgroups.ROOT", tree.root)


@pytest.mark.parametrize("limit", [of_machine, of_container])
@pytest.mark.parametrize("name", OF_FILES)
def test_a_file_whose_copy_does_not_fit_into_memory_is_refused(
    tmp_path: Path, name: str, limit: Callable[[pytest.MonkeyPatch, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, key, write = OF_FILES[name]
    write(tmp_path)
    path = tmp_path / "large.yaml"
    text = SCENARIO.replace("DATASET", dataset).replace("MORE", f"data_folder: {tmp_path}, batch_size: 4")
    path.write_text(text)
    assert asgd_lab("validate", path).status == 0
    limit(monkeypatch, tmp_path)
    said = asgd_lab("validate", path)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert said.err.startswith(f"{path}:2: {key}: ")
    assert said.err.endswith(" GB of memory are free\n")


@pytest.mark.parametrize("task", [
    "{name: text, layers: 1, width: 64, corpus_bytes: 100000}",
    "{name: text, layers: 1, width: 8, heads: 1, corpus_bytes: 30000}",
    "{name: classification, dataset: digits, model: mlp, model_options: {hidden: [600]}}",
])  # fmt: skip
def test_a_text_and_a_model_that_a_container_has_no_memory_for_are_refused(
    tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(re.sub("task: .*", f"task: {task}", SCENARIO))
    assert asgd_lab("validate", path).status == 0
    of_container(monkeypatch, tmp_path)
    said = asgd_lab("validate", path)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert said.err.startswith(f"{path}:2: task.")
    assert said.err.endswith(" GB of memory are free\n")
