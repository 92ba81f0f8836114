"""Records of a version in which a warm-up lay inside the fall of a schedule, and frozen parameters were sent.

`tests/data/records-meaning` holds them as the command wrote them, without logs, traces and snapshots: three that came
to their end and two that were interrupted. Except for the one on digits, their scenarios would be other runs now.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asgd_lab.backends.run import execute
from asgd_lab.record import atomic_files
from asgd_lab.record.run import SEMANTICS
from tests.backends.elsewhere import repeated
from tests.backends.scenarios import QUADRATIC, scenario
from tests.cli.harness import asgd_lab

RECORDS = Path(__file__).parents[1] / "data" / "records-meaning"
SAID = {
    "warm": "whose cosine schedule fell during its warm-up already; it cannot be repeated or continued",
    "frozen": "its vector has 4,938 numbers, and 128 are sent now; it cannot be repeated, continued or exported",
}


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(RECORDS / name, folder / name))


def told(what: str, *arguments: str | Path) -> None:
    said = asgd_lab(*arguments, "--trust")
    assert said.status == 2, said
    line = " ".join(said.err.split())
    assert "was recorded by an earlier version, " in line
    assert SAID[what] in line
    assert line.endswith("; run its scenario anew")


@pytest.mark.parametrize("what", SAID)
@pytest.mark.parametrize("backend", ["sim", "process"])
def test_it_is_not_repeated_and_a_line_says_why(tmp_path: Path, what: str, backend: str) -> None:
    told(what, "replay", copied(f"{what}-{backend}", tmp_path))


def test_data_of_a_version_that_held_them_in_other_types_are_not_said_to_have_changed(tmp_path: Path) -> None:
    said = repeated(copied("digits-sim", tmp_path))
    line = " ".join(said.out.split())
    assert "the same final parameters, bit for bit" in line
    assert "the digest of its data was not compared: an earlier version held them in other types" in line


@pytest.mark.parametrize("what", SAID)
def test_an_unfinished_one_is_not_continued_and_stays_as_it_is(tmp_path: Path, what: str) -> None:
    record = copied(f"{what}-process", tmp_path)
    before = {path: path.read_bytes() for path in record.rglob("*") if path.is_file()}
    told(what, "run", record / "scenario.yaml", "--out", record, "--resume")
    assert {path: path.read_bytes() for path in before} == before


def test_frozen_parameters_that_were_sent_are_not_exported(tmp_path: Path) -> None:
    told("frozen", "export", copied("frozen-sim", tmp_path), tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    "schedule",
    [{"name": "cosine", "length": 40}, {"name": "step", "every": 5, "warmup": 10}, {"name": "constant", "warmup": 10}],
)
def test_schedules_that_mean_the_same_are_repeated(tmp_path: Path, schedule: dict[str, object]) -> None:
    execute(scenario(task={**QUADRATIC, "schedule": schedule}, backend="sim"), tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    content = atomic_files.read_json(manifest)
    assert content.pop("semantics") == SEMANTICS
    atomic_files.write_json(manifest, content)
    assert asgd_lab("replay", tmp_path / "run").status == 0
