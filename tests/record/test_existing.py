"""What is found where a run is to go, and that nothing which was finished, or is another's, is ever removed."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.record.directory_locks import locked
from asgd_lab.record.existing import abandoned, existing_run
from asgd_lab.record.run import RunDirectory, Status

SCENARIO = "name: toy\n"


def begun(path: Path) -> RunDirectory:
    return RunDirectory.create(path, SCENARIO)


def ended(path: Path, status: Status) -> Path:
    begun(path).finish({}, status, None)
    return path


def test_where_nothing_is_a_run_can_go(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        assert existing_run(path) == "nothing"


def test_a_finished_run_is_done_and_stays(tmp_path: Path) -> None:
    ended(tmp_path, "done")
    assert existing_run(tmp_path) == "done"


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_did_not_end_well_is_unfinished(tmp_path: Path, status: Status) -> None:
    assert existing_run(ended(tmp_path / "run", status)) == "unfinished"


@pytest.mark.parametrize("leave", [{"scenario.yaml", "manifest.json"}, {"scenario.yaml"}])
def test_a_run_that_was_killed_is_unfinished_however_little_it_wrote(tmp_path: Path, leave: set[str]) -> None:
    begun(tmp_path)
    for each in tmp_path.iterdir():
        if each.name not in leave:
            each.unlink()
    assert existing_run(tmp_path) == ("unfinished" if "manifest.json" in leave else "claimed")


@pytest.mark.parametrize("names", [["thesis.tex"], ["scenario.yaml", "thesis.tex"], ["manifest.json"]])
def test_what_is_no_run_is_refused_and_left_alone(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text(SCENARIO)
    with pytest.raises(ScenarioError, match=r"holds something else than this run; choose another --out "):
        existing_run(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == names


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match="cannot be used: Not a directory"):
        existing_run(tmp_path / "file")


def test_a_run_that_goes_on_is_nobody_elses_to_look_at(tmp_path: Path) -> None:
    directory, heard = begun(tmp_path / "run"), []

    def look() -> None:  # a thread of its own holds nothing
        try:
            heard.append(existing_run(directory.path))
        except ScenarioError as error:
            heard.append(str(error))

    with locked(directory.path, "--resume"):
        assert existing_run(directory.path) == "unfinished", "the holder itself may look"
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    look()
    message = f"--resume: {directory.path} is in use; the run in it is still going on; wait for its end, or end it"
    assert heard == [message, "unfinished"]


def test_the_manifest_of_an_abandoned_run_says_why_it_ended(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    abandoned(tmp_path / "run", "its process was killed by SIGKILL")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["status"], manifest["failure"]) == ("failed", "its process was killed by SIGKILL")
    abandoned(tmp_path / "never begun", "its process was killed by SIGKILL")
    assert not (tmp_path / "never begun").exists()
