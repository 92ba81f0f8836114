"""Wrong input ends with status 2 and one line on standard error: FILE:LINE: key: what is wrong; never a traceback."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.cli.harness import QUADRATIC, asgd_lab, finish, start
from tests.scenario.bad_scenarios import BAD, Bad
from tests.whole import sample

DIGITS = QUADRATIC.replace("{name: quadratic, curvature: [1.0, 4.0], noise: 0.1}", "{name: classification, MORE}")


def placed(case: Bad, folder: Path) -> Path:
    path = folder / "case.yaml"
    if case.directory:
        path.mkdir()
    elif case.text is not None:
        path.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    return path


def written(folder: Path, text: str, name: str = "scenario.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def into(folder: Path, command: str) -> list[str]:
    return ["--out", str(folder / "out")] if command == "run" else []


def refused(said_err: str, lines: int = 1) -> str:
    """The line of an error, or of several."""
    assert said_err.endswith("\n")
    assert said_err.count("\n") == lines, said_err
    assert "Traceback" not in said_err
    return said_err.rstrip("\n")


@pytest.mark.parametrize(
    ("case", "command"),
    sample(itertools.product(BAD, ["run", "validate"]), 80),  # each case is refused in tests/scenario
    ids=lambda value: value if isinstance(value, str) else value.id,
)
def test_a_bad_scenario_ends_with_status_2_and_one_line(case: Bad, command: str, tmp_path: Path) -> None:
    path = placed(case, tmp_path)
    said = asgd_lab(command, path, *into(tmp_path, command))
    assert said.status == 2
    line = refused(said.err, case.errors)
    assert line.startswith(case.place(path) + (f"{case.key}: " if case.key else ""))
    for fragment in case.allowed:
        assert fragment in line
    assert said.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("id", ["not UTF-8", "unknown link key"])
def test_the_real_program_refuses_as_the_one_in_this_process_does(id: str, tmp_path: Path) -> None:
    case = next(one for one in BAD if one.id == id)
    path = placed(case, tmp_path)
    assert finish(start("validate", path, folder=tmp_path)) == asgd_lab("validate", path)


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_model_that_cannot_be_imported_is_refused_before_anything_is_written(command: str, tmp_path: Path) -> None:
    text = DIGITS.replace("MORE", "dataset: digits, model: 'nobody.wrote_this:net'")
    path = written(tmp_path, text)
    said = asgd_lab(command, path, "--trust", *into(tmp_path, command))
    assert said.status == 2
    line = refused(said.err)
    assert line.startswith(f"{path}:3: task.model: nobody.wrote_this cannot be imported: ModuleNotFoundError")
    assert not (tmp_path / "out").exists()


def test_an_optimizer_keyword_that_torch_does_not_have_is_refused_on_its_line(tmp_path: Path) -> None:
    text = QUADRATIC.replace("noise: 0.1}", "noise: 0.1,\n  optimizer: {name: SGD, lr: 0.1,\n    momentun: 0.9}}")
    path = written(tmp_path, text)
    said = asgd_lab("validate", path)
    assert said.status == 2
    expected = f"{path}:5: task.optimizer.momentun: SGD takes no 'momentun'; did you mean 'momentum'?"
    assert refused(said.err).startswith(expected)


def test_what_torch_refuses_in_a_sweep_is_refused_at_the_sweeps_line_and_point(tmp_path: Path) -> None:
    path = written(tmp_path, QUADRATIC + "sweep:\n  seed: [1, 2]\n  task.optimizer.name: [SGD, SDG]\n")
    said = asgd_lab("run", path, "--out", tmp_path / "out")
    assert said.status == 2
    line = refused(said.err)
    assert line.startswith(f"{path}:11: sweep.task.optimizer.name: torch.optim has no 'SDG'")
    assert line.endswith("(at the sweep's point seed=1,task.optimizer.name=SDG)")
    assert not (tmp_path / "out").exists()


def test_a_fault_of_every_point_is_not_said_to_be_one_points(tmp_path: Path) -> None:
    text = QUADRATIC.replace("noise: 0.1}", "optimizer: {name: SDG}}") + "sweep: {workers: [1, 2], seed: [1, 2]}\n"
    said = asgd_lab("validate", written(tmp_path, text))
    line = refused(said.err)
    assert line.startswith(f"{tmp_path / 'scenario.yaml'}:3: task.optimizer.name: torch.optim has no 'SDG'; did you ")
    assert "mean 'SGD'? allowed: ASGD, " in line
    assert "(at the sweep" not in line


def test_an_error_in_what_an_option_set_names_the_option(tmp_path: Path) -> None:
    path = written(tmp_path, QUADRATIC)
    for arguments, start_ in [
        (["--seed", "-1"], "--seed: must be a whole number, at least 0"),
        (
            ["--backend", "simm"],
            "--backend: must be 'inline', 'sim' or 'process'; got 'simm'; did you mean 'sim'?",
        ),
        (["--set", "backend.name=simm"], "--set backend.name: must be"),
        (["--set", "seed=-1"], "--set seed: must be a whole number"),
        (["--set", "workers"], "--set workers: must be KEY=VALUE"),
        (["--set", "worker=2"], "--set worker: unknown key; did you mean 'workers'?"),
        (["--set", "task.optimizer.lrr=2"], "--set task.optimizer.lrr: SGD takes no 'lrr'"),
    ]:
        said = asgd_lab("run", path, *arguments)
        assert said.status == 2
        line = refused(said.err)
        assert line.startswith(start_), line


@pytest.mark.parametrize("sweep", ["", "sweep: {seed: [1, 2]}\n"])
def test_a_directory_that_is_not_empty_is_refused(sweep: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("")
    said = asgd_lab("run", written(tmp_path, QUADRATIC + sweep), "--out", out)
    assert (said.status, refused(said.err)) == (2, f"--out: {out} is not empty; choose another")
    assert [each.name for each in out.iterdir()] == ["thesis.tex"]


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, QUADRATIC)
    said = asgd_lab("run", path, "--out", path)
    assert said.status == 2
    assert refused(said.err).startswith(f"--out: {path} cannot be used")


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["run"], ["run", "a.yaml", "--seed", "many"], ["run", "a.yaml", "--no-such"]]
)
def test_a_command_that_is_not_understood_has_status_2(arguments: list[str]) -> None:
    assert asgd_lab(*arguments).status == 2
