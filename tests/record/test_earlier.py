"""Records that an earlier version wrote, before effects had clients and incarnations, are read as before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asgd_lab.figures.timeline import timeline
from asgd_lab.record import tables, trace
from tests.cli.harness import QUADRATIC, asgd_lab

EARLIER = Path(__file__).parent / "earlier"


@pytest.fixture(params=["sim", "real"])
def record(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(EARLIER / request.param, tmp_path / request.param))


def test_it_is_replayed_drawn_and_put_into_tensorboards_files(record: Path) -> None:
    assert asgd_lab("replay", record).status == 0
    timeline(record, 0.0, 0.05)
    trace.write(record)
    said = asgd_lab("tensorboard", record, "--out", record.parent / "board")
    assert said.status == 0, said


def test_its_workers_are_known_and_the_clients_of_its_server_are_not(record: Path) -> None:
    effects = tables.read(record, "effects")
    assert (effects["client"] == effects["worker"]).all()
    assert set(effects["incarnation"]) == {-1}
    assert len(tables.first(record, "effects", 3)[0]) == 3


def test_a_later_run_takes_its_step_times_and_its_end(record: Path, tmp_path: Path) -> None:
    path = tmp_path / "later.yaml"
    text = QUADRATIC.replace("{step_s: 0.01}", f"{{distribution: empirical, run: {record}}}")
    path.write_text(text + f"warm_start: {{run: {record}}}\n")
    said = asgd_lab("run", path, "--out", tmp_path / "later")
    assert said.status == 0, said


def test_it_is_known_as_done_by_resume(record: Path, tmp_path: Path) -> None:
    path = tmp_path / "same.yaml"
    text = QUADRATIC
    if record.name == "real":
        text = text.replace("backend: sim", "backend: {name: process, checkpoint: {every_updates: 4}}")
        text = text.replace("minibatches: 40", "minibatches: 60").replace("name: bowl", "name: real")
    path.write_text(text)
    said = asgd_lab("run", path, "--out", record, "--resume")
    assert said.status == 0, said
    assert "is done already" in said.out
