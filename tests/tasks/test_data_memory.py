"""Memory of a run over arrays in a file: no process of it holds a copy of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asgd_lab.backends.run import execute
from tests.backends.scenarios import scenario

ROWS, COLUMNS = 2048, 8192  # 64 MiB of float32 in the large file, a quarter of that in the small one
HERE = Path(__file__).parent


class Weighed(nn.Module):
    """Writes the memory that its process shares with no file, at every hundredth sample."""

    def __init__(self, num_classes: int, folder: str) -> None:
        super().__init__()
        self.inside, self.folder = nn.Linear(4, num_classes), folder

    def forward(self, inputs: Tensor) -> Tensor:
        rollup = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
        found = {key: int(rollup[key].split()[0]) for key in ("Pss_Anon", "Pss_Shmem", "Pss_File")}
        import os

        Path(self.folder, f"{os.getpid()}.json").write_text(json.dumps(found))
        outputs: Tensor = self.inside(inputs[:, :4])
        return outputs


def weighed(num_classes: int, folder: str) -> nn.Module:
    return Weighed(num_classes, folder)


def held_kib(folder: Path, rows: int) -> int:
    """Memory outside files that all processes of a run hold together, at their last minibatch."""
    folder.mkdir()
    values = np.arange(rows * COLUMNS, dtype=np.float32).reshape(rows, COLUMNS) % 7
    for split, count in (("train", rows), ("test", 64)):
        np.save(folder / f"{split}_images.npy", values[:count])
        np.save(folder / f"{split}_labels.npy", np.arange(count) % 2)
    task = {"name": "classification", "dataset": "numpy", "data_folder": str(folder), "batch_size": 32,
            "model": "tests.tasks.test_data_memory:weighed", "model_options": {"folder": str(folder)}}  # fmt: skip
    del values
    execute(scenario(task=task, backend="process", workers=2, budget={"minibatches": 2 * rows // 32}), folder / "run")
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert len(found) >= 2, "each worker has written"
    return sum(each["Pss_Anon"] + each["Pss_Shmem"] for each in found)


@pytest.mark.xdist_group("process")
def test_a_run_over_a_file_holds_no_copy_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, large = held_kib(tmp_path / "small", ROWS // 4), held_kib(tmp_path / "large", ROWS)
    file_kib = (ROWS - ROWS // 4) * COLUMNS * 4 // 1024
    assert large - small < file_kib // 2, f"{large - small:,} KiB more for {file_kib:,} KiB more of data"
