"""Real runs whose log of events is of the first format: they repeat to the bit, and none is continued.

`tests/data/records-1` holds them as the command wrote them, without logs and traces: an algorithm each, a worker and a
server that were killed, and a run that was interrupted, resumed in one record and not in the other.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.backends.elsewhere import repeated
from tests.cli.harness import asgd_lab

RECORDS = Path(__file__).parents[1] / "data" / "records-1"
UNFINISHED = "interrupted"


def copied(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(RECORDS / name, folder / name))


@pytest.mark.parametrize("name", sorted(path.name for path in RECORDS.iterdir()))
def test_a_record_of_the_first_format_repeats_to_the_bit(tmp_path: Path, name: str) -> None:
    said = repeated(copied(name, tmp_path))
    assert "the final parameters are the same bits" in " ".join(said.out.split())


def test_an_unfinished_record_of_the_first_format_is_not_continued_and_stays_as_it_is(tmp_path: Path) -> None:
    record = copied(UNFINISHED, tmp_path)
    before = {path: path.read_bytes() for path in record.rglob("*") if path.is_file()}
    said = asgd_lab("run", record / "scenario.yaml", "--out", record, "--resume")
    assert said.status == 2, said
    assert said.err.endswith(
        "of version 1 of the log's format, which can be replayed and not continued; choose another --out\n"
    )
    assert {path: path.read_bytes() for path in before} == before
