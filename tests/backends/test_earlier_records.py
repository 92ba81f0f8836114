"""Real runs whose log of events is of the first format: they repeat to the bit, and the unfinished one is resumed.

`tests/data/records-1` holds them as the command wrote them, without logs and traces: an algorithm each, a worker and a
server that were killed, and a run that was interrupted, resumed in one record and not in the other.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.harness import asgd_lab

RECORDS = Path(__file__).parents[1] / "data" / "records-1"
UNFINISHED = "interrupted"


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(RECORDS / name, folder / name))


@pytest.mark.parametrize("name", sorted(path.name for path in RECORDS.iterdir()))
def test_a_record_of_the_first_format_repeats_to_the_bit(tmp_path: Path, name: str) -> None:
    said = asgd_lab("replay", copied(name, tmp_path))
    assert said.status == 0, said
    assert "the final parameters are the same bits" in " ".join(said.out.split())


def test_an_unfinished_record_of_the_first_format_is_resumed_and_repeats(tmp_path: Path) -> None:
    record = copied(UNFINISHED, tmp_path)
    said = asgd_lab("run", record / "scenario.yaml", "--out", record, "--resume")
    assert said.status == 0, said
    assert "from version 18" in " ".join(said.out.split())
    said = asgd_lab("replay", record)
    assert said.status == 0, said
