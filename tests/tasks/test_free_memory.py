"""What does not fit into memory is refused in one line, before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.harness import asgd_lab

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
