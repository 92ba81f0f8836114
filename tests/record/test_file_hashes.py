"""What a run left is what its manifest vouches for: another file in its place is found, whatever is whole about it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.fit import step_times_s
from asgd_lab.record import atomic_files, file_hashes, tables
from asgd_lab.record.run import read_manifest, read_summary
from asgd_lab.record.saved_model import final_params, saved
from tests.backends.scenarios import QUADRATIC, run

READERS: dict[str, Callable[[Path], object]] = {
    "summary.json": read_summary,
    "effects.parquet": lambda path: tables.read(path, "effects"),
    "minibatches.parquet": lambda path: tables.first(path, "minibatches", 5),
    "evals.parquet": lambda path: tables.read(path, "evals"),
    "checkpoints/final.npz": final_params,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two simulated runs that differ in their seed."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        run(folder / str(seed), task=QUADRATIC, seed=seed)
    return folder / "1", folder / "2"


@pytest.mark.parametrize("name", READERS)
def test_another_runs_file_and_a_missing_one_are_found(runs: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    out = Path(shutil.copytree(runs[0], tmp_path / "run"))
    READERS[name](out)
    assert name in read_manifest(out)["files"]
    shutil.copyfile(runs[1] / ("minibatches.parquet" if name == "effects.parquet" else name), out / name)
    with pytest.raises(ScenarioError, match="is damaged: it is not the file that the run wrote") as found:
        READERS[name](out)
    assert name in str(found.value)
    (out / name).unlink()
    with pytest.raises(ScenarioError, match="is missing, and the run wrote it"):
        READERS[name](out)
    if name.endswith("npz"):
        with pytest.raises(ScenarioError, match="is missing, and the run wrote it"):
            saved(out)


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_size_is_found_without_reading_it(
    runs: tuple[Path, Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(runs[0], tmp_path / "run"))
    with (out / name).open("r+b") as file:
        file.truncate(20 * 2**30)  # sparse

    def never(path: Path) -> str:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(atomic_files, "sha256", never)
    with pytest.raises(ScenarioError, match="is damaged: it is not the file that the run wrote"):
        READERS[name](out)


def test_of_a_folder_without_a_manifest_nothing_is_known(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copyfile(runs[0] / "effects.parquet", tmp_path / "effects.parquet")
    assert not file_hashes.check(tmp_path, "effects.parquet")
    assert len(tables.read(tmp_path, "effects"))


def test_every_flipped_bit_of_a_table_that_nothing_vouches_for_is_found_or_leaves_its_rows(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "evals.parquet"
    content = (runs[0] / "evals.parquet").read_bytes()
    path.write_bytes(content)
    rows = tables.read(tmp_path, "evals")
    said = []
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            came = tables.read(tmp_path, "evals")
        except ScenarioError as error:
            said.append(str(error))
        else:
            pd.testing.assert_frame_equal(came, rows, check_exact=True)
    assert all("evals.parquet" in line and "\n" not in line for line in said)
    assert len(said) > len(content) / 7 / 4


@pytest.mark.parametrize("end", [float("nan"), float("inf"), 0.5, 0.2])
def test_step_times_that_no_minibatch_can_take_are_refused(end: float) -> None:
    effects = pd.DataFrame({"kind": ["train"], "worker": [0], "start_s": [0.5], "end_s": [end], "steps": [2]})
    minibatches = pd.DataFrame({"worker": [], "step": [], "time_s": []})
    with pytest.raises(ScenarioError, match="1 of 1 recorded step times are not finite and positive"):
        step_times_s(effects, minibatches)
