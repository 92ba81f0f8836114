"""What was meant is told: keys written as options or arguments, several values at once, no sweep at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asgd_lab.record.run import mark

from .harness import QUADRATIC, asgd_lab


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(QUADRATIC)
    return path


@pytest.mark.parametrize(
    "arguments", [["workers=8"], ["--workers=8"], ["--workers", "8"], ["--seed", "1", "workers=8"]]
)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_key_in_the_place_of_an_option_is_told_how_it_is_set(
    scenario: Path, command: str, arguments: list[str]
) -> None:
    if command == "validate" and "--seed" in arguments:
        arguments = ["workers=8"]
    said = asgd_lab(command, scenario, *arguments)
    assert said.status == 2
    assert "; did you mean --set workers=8?" in " ".join(said.err.replace("│", " ").split())


def test_an_assignment_alone_is_no_scenario() -> None:
    said = asgd_lab("run", "workers=8")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert said.err.endswith("; did you mean --set workers=8?\n")


@pytest.mark.parametrize("written", ["2,4,8", "[2,4,8]"])
def test_several_values_are_told_how_they_are_swept(scenario: Path, written: str) -> None:
    said = asgd_lab("validate", scenario, "--set", f"workers={written}")
    assert said.status == 2
    hint = "sweep.workers=[2,4,8]"
    assert said.err.endswith(f"; for a run of each, --set '{hint}'\n")
    assert asgd_lab("validate", scenario, "--set", hint).out.endswith("valid; 3 runs\n")


@pytest.mark.parametrize("written", ["null", "{}", ""])
def test_no_sweep_is_said_in_any_way(scenario: Path, written: str) -> None:
    scenario.write_text(QUADRATIC + "sweep: {workers: [1, 2]}\n")
    said = asgd_lab("validate", scenario, "--set", f"sweep={written}")
    assert said.out.endswith("valid; 1 run\n")


@pytest.mark.parametrize("command", [["replay"], ["explain"], ["export"]])
def test_a_sweep_in_the_place_of_a_run_is_told_which_runs_it_has(
    scenario: Path, tmp_path: Path, command: list[str]
) -> None:
    out = tmp_path / "out"
    asgd_lab("run", scenario, "--set", "sweep.workers=[1,2]", "--jobs", "1", "--out", out)
    said = asgd_lab(*command, out, *([tmp_path / "model.pt"] if command == ["export"] else []))
    hint = f"it is the directory of a sweep: give one of its runs, such as {out / 'workers=1'}"
    assert (said.status, said.err) == (2, f"{out}: is not a run directory; {hint}\n")


def test_a_missing_quantity_is_told_with_what_it_counts(scenario: Path) -> None:
    said = asgd_lab("validate", scenario, "--set", "task={name: timing}")
    assert said.err.endswith("; bytes that one push or one fetch moves: 4 times the number of parameters\n")


@pytest.mark.parametrize(("changes", "is_offered"), [([], True), (["--set", "workers=3"], False)])
@pytest.mark.parametrize("sweep", [[], ["--set", "sweep.seed=[1,2]"]])
def test_resume_is_offered_where_it_would_go_on_and_nowhere_else(
    scenario: Path, tmp_path: Path, sweep: list[str], changes: list[str], is_offered: bool
) -> None:
    out = tmp_path / "out"
    command = ("run", scenario, *sweep, "--jobs", "1", "--out", out)
    assert asgd_lab(*command).status == 0
    refused = f"--out: {out} is not empty; choose another"
    assert asgd_lab(*command).err == f"{refused}\n"  # all is done
    if sweep:
        shutil.rmtree(out / "seed=2")
    else:
        mark(out, "interrupted")
    offer = ", or add --resume to go on with what is there" if is_offered else ""
    assert asgd_lab(*command, *changes).err == f"{refused}{offer}\n"
    if is_offered:
        assert asgd_lab(*command, "--resume").status == 0


def test_an_option_without_its_value_is_one_line(scenario: Path) -> None:
    said = asgd_lab("run", scenario, "--seed")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "option '--seed' requires an argument; " in said.err
