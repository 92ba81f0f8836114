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

ROWS, COLUMNS = 2048, 32768  # 64 MiB of bytes in the large file, a quarter of that in the small one
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
        outputs: Tensor = self.inside(inputs[:, :4].float())
        return outputs


def weighed(num_classes: int, folder: str) -> nn.Module:
    return Weighed(num_classes, folder)


def whole(folder: str) -> dict[str, Tensor]:
    """Data that are read whole, and become numbers of four bytes."""
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    found = {part: torch.from_numpy(np.load(Path(folder) / f"{part}.npy")) for part in parts}
    return {part: each.float() if part.endswith("images") else each for part, each in found.items()}


def held_kib(folder: Path, rows: int, dataset: str = "numpy") -> int:
    """Memory outside files that all processes of a run hold together, at their last minibatch."""
    folder.mkdir()
    values = np.broadcast_to((np.arange(COLUMNS) % 7).astype(np.uint8), (rows, COLUMNS))
    for split, count in (("train", rows), ("test", 64)):
        np.save(folder / f"{split}_images.npy", values[:count])
        np.save(folder / f"{split}_labels.npy", np.arange(count) % 2)
    where = {"data_folder": str(folder)} if dataset == "numpy" else {"dataset_options": {"folder": str(folder)}}
    task = {"name": "classification", "dataset": dataset, **where, "batch_size": 32,
            "model": "tests.tasks.test_data_memory:weighed", "model_options": {"folder": str(folder)}}  # fmt: skip
    execute(scenario(task=task, backend="process", workers=2, budget={"minibatches": 2 * rows // 32}), folder / "run")
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert len(found) >= 2, "each worker has written"
    return sum(each["Pss_Anon"] + each["Pss_Shmem"] for each in found)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What is held over a small and a large file that are mapped, and over a small one that is read whole."""
    torch.manual_seed(0)
    few, whole_data = ROWS // 4, f"{__name__}:whole"
    runs = {"first": (64, "numpy"), "small": (few, "numpy"), "large": (ROWS, "numpy"), "read": (few, whole_data)}
    folder = tmp_path_factory.mktemp("held")  # the first run leaves imports and caches behind
    return {name: held_kib(folder / name, *run) for name, run in runs.items()}


@pytest.mark.xdist_group("process")
def test_a_run_over_a_file_holds_no_copy_of_it(held: dict[str, int]) -> None:
    file_kib, more = (ROWS - ROWS // 4) * COLUMNS // 1024, held["large"] - held["small"]
    assert more < file_kib // 2, f"{more:,} KiB more for {file_kib:,} KiB more of data"


@pytest.mark.xdist_group("process")
def test_data_that_are_read_whole_are_seen_in_this_measure_of_memory(held: dict[str, int]) -> None:
    """The null of the test above: what it measures if a run holds its data as numbers of four bytes."""
    assert held["read"] - held["small"] > 3 * ROWS // 4 * COLUMNS // 1024
