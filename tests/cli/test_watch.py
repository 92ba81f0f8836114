"""A run that is watched from elsewhere: its progress, its end, its death, and directories that are no run."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import asgd_lab
from asgd_lab import watching
from asgd_lab.backends import progress_file
from asgd_lab.record.directory_locks import in_use
from asgd_lab.record.run import mark
from tests.cli.harness import ENDLESS, QUADRATIC, await_line, start
from tests.cli.harness import asgd_lab as program


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and watching without long waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watching, "POLL_S", 0.02)
    monkeypatch.setattr(watching, "STILL_S", 0.1)
    return tmp_path


def test_a_run_of_another_process_is_watched_until_it_is_killed_and_its_death_is_told(here: Path) -> None:
    (here / "endless.yaml").write_text(ENDLESS)
    run = start("run", "endless.yaml", "--out", "run", folder=here)
    await_line(run, "minibatches")
    seen = asgd_lab.watch("run")
    first = next(each for each in seen if each.minibatches)
    assert [look.state for look in first.workers]
    second = next(seen)
    assert (second.seconds, second.minibatches) > (first.seconds, first.minibatches)
    assert in_use(here / "run")
    run.kill()
    run.communicate()
    said = program("watch", "run")
    assert said.status == 1
    assert said.err.startswith("run: the run died without finishing after ")
    assert said.err.count("\n") == 1
    assert " minibatches/s" in said.out


def test_a_simulation_is_watched_and_its_end_is_shown(here: Path) -> None:
    (here / "bowl.yaml").write_text(
        QUADRATIC.replace("{minibatches: 40}", "{minibatches: 50_000_000}\nrecord: summary")
    )
    enough = threading.Event()

    def stop(_: asgd_lab.Progress) -> None:
        if enough.is_set():
            raise KeyboardInterrupt

    def simulate() -> None:
        with pytest.raises(asgd_lab.Interrupted):
            asgd_lab.run("bowl.yaml", out="run", watch=stop)

    thread = threading.Thread(target=simulate)
    thread.start()
    while not (here / "run" / "progress.json").exists():
        thread.join(0.05)
        assert thread.is_alive()
    for progress in asgd_lab.watch(here / "run"):
        assert progress.minibatches <= 50_000_000
        enough.set()
    thread.join()
    assert not (here / "run" / "progress.json").exists()
    said = program("watch", "run")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[0] == "run: interrupted"
    assert "minibatches" in said.out


def test_a_finished_run_prints_its_end_and_leaves(here: Path) -> None:
    (here / "bowl.yaml").write_text(QUADRATIC)
    run = asgd_lab.run("bowl.yaml", out="run")
    assert [*asgd_lab.watch(run)] == []
    said = program("watch", "run")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("run: done\n")
    assert "40, " in said.out


def test_the_locks_of_another_host_are_not_believed(here: Path) -> None:
    (here / "bowl.yaml").write_text(QUADRATIC)
    asgd_lab.run("bowl.yaml", out="run")
    mark(here / "run", "running")
    told = progress_file.Told(1, "elsewhere", asgd_lab.Progress(1.0, 1, 1, 0))
    assert watching._has_died(here / "run", None)
    assert not watching._has_died(here / "run", told)


def test_a_progress_that_cannot_be_read_is_none(here: Path) -> None:
    (here / "progress.json").write_text(json.dumps({"number": 1}))
    assert progress_file.read(here) is None
    assert progress_file.read(here / "nowhere") is None


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "nowhere: is not a run directory; there is no such directory"),
        (".", ": is not a run directory; manifest.json is missing"),
        ("sweep", "sweep: is the directory of a sweep; name the directory of one of its runs"),
    ],
)
def test_a_directory_that_is_no_run_is_one_line(here: Path, path: str, said: str) -> None:
    (here / "sweep").mkdir()
    (here / "sweep" / "sweep.json").write_text("{}")
    found = program("watch", path)
    assert found.status == 2
    assert found.err.endswith(f"{said}\n")
    assert found.err.count("\n") == 1
