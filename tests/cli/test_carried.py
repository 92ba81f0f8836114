"""The scenarios that come with the package: listed, found by name, copied; and the scenario that `new` begins with."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from asgd_lab.scenario import Document, carried, first_difference
from asgd_lab.trust import trusting
from tests.cli.harness import QUADRATIC, Said, asgd_lab, finish, start
from tests.whole import sample

ROOT = Path(__file__).parents[2]
NAMES = carried.names()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, far from the tree; modules that are imported here are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "bring_your_own", raising=False)
    return tmp_path


def test_every_scenario_of_the_tree_is_listed_with_its_question() -> None:
    paths = {
        path.relative_to(ROOT / "scenarios").with_suffix("").as_posix() for path in ROOT.glob("scenarios/**/*.yaml")
    }
    assert {*NAMES} == paths
    said = asgd_lab("list", "scenarios")
    assert (said.status, said.err) == (0, "")
    title, *lines = said.out.splitlines()
    assert title == "scenarios"
    listed = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines)
    assert [*listed] == NAMES
    assert all(question.endswith("?") for question in listed.values())
    assert listed["how-stale"] == "How stale is a push, and does it depend on how regular the workers are?"


@pytest.mark.parametrize("name", sample(NAMES, 6))
def test_a_name_is_enough_in_any_folder(name: str) -> None:
    with trusting(False):
        assert Document.read(name).points()[0].scenario.name == name.rpartition("/")[2]


def test_a_carried_scenario_runs_by_its_name() -> None:
    said = asgd_lab("run", "how-stale", "--set", "budget.updates=20", "--set", "sweep=null", "--out", "out")
    assert (said.status, said.err) == (0, "")
    assert Path("out/summary.json").exists()


def test_a_file_precedes_a_carried_scenario_and_a_line_says_so() -> None:
    Path("quickstart").write_text(QUADRATIC)
    said = asgd_lab("validate", "quickstart")
    both = "warning: quickstart: is a file here, and the name of a carried scenario too; the file is used\n"
    assert said == Said(0, "quickstart: valid; 1 run\n", both)


def test_a_folder_of_that_name_is_no_scenario() -> None:
    Path("how-stale").mkdir()
    said = asgd_lab("validate", "how-stale")
    assert said == Said(0, "how-stale: valid; 9 runs\n", "")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("quickstrat", "; did you mean 'quickstart'?"),
        ("how_stale", "; did you mean 'how-stale'?"),
        ("mine.yaml", ", or a name that `asgd-lab list scenarios` prints"),
    ],
)
def test_a_name_that_nothing_has_is_answered_with_what_was_meant(given: str, hint: str) -> None:
    said = asgd_lab("run", given)
    assert said == Said(2, "", f"{given}: no such file; give the path of a scenario file{hint}\n")


def test_the_kept_schema_is_the_one_that_the_command_prints() -> None:
    """In a process of its own, where no test has imported a class of a user."""
    said = finish(start("schema", folder=Path()))
    kept = (ROOT / "scenarios" / "schema.json").read_text(encoding="utf-8")
    assert said.out == kept, "make schema writes it anew"


# ---------------------------------------------------------------- new


def test_a_new_scenario_is_valid_runs_and_is_named_like_its_file() -> None:
    assert asgd_lab("new", "mine.yaml") == Said(0, "wrote mine.yaml\n", "")
    text = Path("mine.yaml").read_text()
    assert "FILE" not in text
    assert "NAME" not in text.partition("\nname:")[2]
    points = Document.read("mine.yaml").points()
    assert {point.scenario.name for point in points} == {"mine"}
    assert len(points) == 8
    assert asgd_lab("validate", "mine.yaml") == Said(0, "mine.yaml: valid; 8 runs\n", "")
    said = asgd_lab("run", "mine.yaml", "--set", "workers=2", "--set", "algorithm.n_sync=10", "--out", "out")
    assert (said.status, said.err) == (0, "")
    (evaluated,) = Path("out").rglob("evals.parquet")
    assert pd.read_parquet(evaluated)["version"].nunique() > 3, "the target is not met at the first evaluation"


@pytest.mark.parametrize("name", sample(NAMES, 6))
def test_a_copy_of_a_carried_scenario_says_the_same(name: str) -> None:
    assert asgd_lab("new", "my own.yaml", "--from", name).status == 0
    ours, theirs = (Document.read(path).scenario({"name": "any"}) for path in ("my own.yaml", name))
    assert first_difference(ours, theirs) is None
    text = Path("my own.yaml").read_text()
    assert Document.read("my own.yaml").scenario().name == "my own"
    assert f"asgd-lab run {name}" not in text
    assert re.search(r"asgd-lab (run|compare) 'my own.yaml'", text)


@pytest.mark.parametrize("backend", ["sim", "process"])
def test_the_code_of_a_carried_scenario_travels_with_it(backend: str) -> None:
    short = ("--backend", backend, "--set", "budget.minibatches=20", "--out", f"out-{backend}")
    refused = asgd_lab("run", "bring-your-own", *short)
    assert refused.status == 2
    assert "add --trust if you trust its author" in refused.err
    said = asgd_lab("run", "bring-your-own", "--trust", *short)
    assert said.status == 0, said


def test_points_in_processes_of_their_own_find_code_beside_the_scenario() -> None:
    Path("mine").mkdir()
    assert asgd_lab("new", "mine/mine.yaml", "--from", "bring-your-own").out == (
        "wrote mine/mine.yaml\nwrote mine/bring_your_own.py\n"
    )
    short = ("--backend", "sim", "--set", "budget.minibatches=20", "--seeds", "2", "--jobs", "2", "--out", "out")
    said = asgd_lab("run", "mine/mine.yaml", "--trust", *short)
    assert said.status == 0, said


@pytest.mark.parametrize("stem", ["true", "1.5", "größe", "it's", "a: b", "#x"])
def test_any_name_of_a_file_is_the_scenarios(stem: str) -> None:
    assert asgd_lab("new", f"{stem}.yaml").status == 0
    assert Document.read(f"{stem}.yaml").scenario().name == stem


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("taken.yaml",), "taken.yaml: exists, and is not overwritten; choose another name"),
        (("link.yaml",), "link.yaml: exists, and is not overwritten; choose another name"),
        (("code/mine.yaml", "--from", "bring-your-own"),
         "code/bring_your_own.py: exists, and is not overwritten; choose another name"),
        (("mine",), "mine: must end in .yaml"),
        (("nowhere/mine.yaml",), "cannot be written: nowhere/mine.yaml: No such file or directory"),
        (("a\\b.yaml",), "a\\b.yaml: its name becomes the scenario's, which must be able to name a folder; no slash, "
         "no control character, no dot at the start"),
        (("mine.yaml", "--from", "quikstart"), "--from: no carried scenario has the name 'quikstart'; did you mean "
         "'quickstart'?; see `asgd-lab list scenarios`"),
    ],
)  # fmt: skip
def test_what_new_cannot_write_is_said_in_a_line_and_changes_nothing(arguments: tuple[str, ...], line: str) -> None:
    Path("taken.yaml").write_text("mine")
    Path("link.yaml").symlink_to("nowhere")
    Path("code").mkdir()
    Path("code/bring_your_own.py").write_text("mine")
    before = sorted(Path().rglob("*"))
    assert asgd_lab("new", *arguments) == Said(2, "", f"{line}\n")
    assert sorted(Path().rglob("*")) == before
    assert Path("taken.yaml").read_text() == Path("code/bring_your_own.py").read_text() == "mine"
