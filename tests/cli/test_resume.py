"""What --resume and --out do with a directory: who may go on, what is refused, and that nothing of anybody is lost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from asgd_lab.record.run import mark, read_summary
from tests.whole import sample

from .harness import QUADRATIC, Said, asgd_lab, finish, start

RUN = ("run", "scenario.yaml", "--out", "out")
RESUME = (*RUN, "--resume")


@pytest.fixture
def bowl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("scenario.yaml")
    path.write_text(QUADRATIC)
    return path


def state(folder: Path) -> dict[str, str]:
    """Every name below, with what it is: of a file, a hash of its bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


def unfinished(out: Path = Path("out")) -> Path:
    said = asgd_lab("run", "scenario.yaml", "--out", out)
    assert said.status == 0, said.err
    mark(out, "interrupted")
    return out


def test_a_run_made_anew_leaves_the_users_own_files_and_folders(bowl: Path) -> None:
    out = unfinished()
    mine = [*("notes.txt", "logs/notes.txt", "checkpoints/best.npz", "figures/effects.parquet", "second/manifest.json")]
    for name in mine:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(name)
    (out / "elsewhere").symlink_to("/usr")
    said = asgd_lab(*RESUME)
    assert said.status == 0, said.err
    assert read_summary(out)["status"] == "done"
    assert [(out / name).read_text() for name in mine] == mine
    assert os.readlink(out / "elsewhere") == "/usr"


def test_an_empty_directory_that_was_there_stays_when_the_run_cannot_begin(bowl: Path) -> None:
    Path("out").mkdir()
    bowl.write_text(QUADRATIC + "warm_start: {run: absent}\n")
    assert asgd_lab(*RUN).status == 2
    assert state(Path("out")) == {}
    assert Path("out").is_dir()
    Path("out").rmdir()
    assert asgd_lab(*RUN).status == 2
    assert not Path("out").exists(), "what the command made itself goes"


def link_away(out: Path, name: str) -> None:
    (out / name).rename(out.parent / "elsewhere")
    (out / name).symlink_to(out.parent.resolve() / "elsewhere")


def replace_by_fifo(out: Path, name: str) -> None:
    (out / name).unlink()
    os.mkfifo(out / name)


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda out: (out / name).write_text(content)


CANNOT_BEGIN: dict[str, tuple[Callable[[Path], object], str]] = {
    "the recorded scenario is empty": (text("scenario.yaml", ""), "scenario.yaml:1: "),
    "the recorded scenario is no scenario": (text("scenario.yaml", "a: ["), "scenario.yaml:1: "),
    "the recorded scenario is another": (
        lambda out: text("scenario.yaml", (out / "scenario.yaml").read_text().replace("seed: 3", "seed: 4"))(out),
        "another scenario: seed is 4 there and 3 here",
    ),
    "the recorded scenario is absent": (lambda out: (out / "scenario.yaml").unlink(), "something else"),
    "the recorded scenario is a FIFO": (lambda out: replace_by_fifo(out, "scenario.yaml"), "something else"),
    "the manifest is absent": (lambda out: (out / "manifest.json").unlink(), "something else"),
    "the manifest is empty": (text("manifest.json", ""), "manifest.json: is damaged"),
    "the manifest is cut": (text("manifest.json", '{"status": "inter'), "manifest.json: is damaged"),
    "the manifest is no mapping": (text("manifest.json", "[]"), "manifest.json: is damaged"),
    "the manifest is not UTF-8": (lambda out: (out / "manifest.json").write_bytes(b'"\xff"'), "is damaged"),
    "the manifest is a FIFO": (lambda out: replace_by_fifo(out, "manifest.json"), "something else"),
    "the trace is a link": (lambda out: link_away(out, "trace.json"), "trace.json: is a symbolic link"),
    "a table is a link": (lambda out: link_away(out, "effects.parquet"), "effects.parquet: is a symbolic link"),
    "a folder is a link": (lambda out: link_away(out, "checkpoints"), "checkpoints: is a symbolic link"),
    "the summary is a folder": (
        lambda out: ((out / "summary.json").unlink(), (out / "summary.json").mkdir()), "summary.json: is a folder",
    ),
    "a table is a FIFO": (lambda out: replace_by_fifo(out, "evals.parquet"), "evals.parquet: is no plain file"),
}  # fmt: skip


@pytest.mark.parametrize("why", CANNOT_BEGIN)
def test_a_resume_that_cannot_begin_says_why_and_leaves_every_byte(bowl: Path, why: str) -> None:
    out = unfinished()
    (out / "notes.txt").write_text("mine")
    spoil, words = CANNOT_BEGIN[why]
    spoil(out)
    before = state(Path())
    said = asgd_lab(*RESUME)
    assert said.status == 2, said
    assert said.err.count("\n") == 1
    assert words in said.err
    assert state(Path()) == before


@pytest.mark.parametrize("change", ["warm start", "step times"])
def test_a_resume_whose_other_run_is_gone_leaves_every_byte(bowl: Path, change: str) -> None:
    asgd_lab("run", bowl, "--out", "first")
    more = "warm_start: {run: first}\n"
    if change == "step times":
        more = "hardware: {compute: {distribution: empirical, run: first}}\n"
    bowl.write_text(
        QUADRATIC.replace("hardware: {compute: {step_s: 0.01}}\n", "")
        + more
        + ("" if change == "step times" else "hardware: {compute: {step_s: 0.01}}\n")
    )
    unfinished()
    Path("first").rename("second")
    before = state(Path())
    said = asgd_lab(*RESUME)
    assert (said.status, said.err.count("\n")) == (2, 1), said
    assert state(Path()) == before


def test_comments_order_and_quotes_in_the_recorded_scenario_do_not_matter(bowl: Path) -> None:
    out = unfinished()
    recorded = (out / "scenario.yaml").read_text()
    lines = [f"{line}  # a remark" if line.startswith("seed") else line for line in recorded.splitlines()]
    lines = [line for line in lines if not line.startswith(("record:", "faults:", "evaluate:"))]  # as before they were
    (out / "scenario.yaml").write_text("# mine\n" + "\n".join(lines) + "\n")
    assert asgd_lab(*RESUME).status == 0
    assert "is done already" in asgd_lab(*RESUME).out


@pytest.mark.parametrize("tail", ["", "/", "/.", "/../out"])
def test_a_link_to_a_run_directory_is_followed_once(bowl: Path, tail: str) -> None:
    unfinished(Path("elsewhere"))
    Path("elsewhere/notes.txt").write_text("mine")
    Path("out").symlink_to("elsewhere")
    said = asgd_lab("run", bowl, "--out", f"out{tail}", "--resume")
    assert said.status == 0, said
    assert read_summary("elsewhere")["status"] == "done"
    assert Path("elsewhere/notes.txt").read_text() == "mine"
    assert Path("out").is_symlink()


def no_folder(kind: str) -> Path:
    path = Path("odd")
    match kind:
        case "a file":
            path.write_text("mine")
        case "a FIFO":
            os.mkfifo(path)
        case "a broken link":
            path.symlink_to("nowhere")
        case "a link to a file":
            Path("file").write_text("mine")
            path.symlink_to("file")
        case "a loop of links":
            path.symlink_to("odd")
        case "below a file":
            path.write_text("mine")
            return path / "inside"
        case "an overlong name":
            return Path("x" * 300)
        case "a device":
            return Path("/dev/null")
        case "the parent of a file":
            path.write_text("mine")
            return path / ".." / "odd" / "run"
    return path


KINDS = ["a file", "a FIFO", "a broken link", "a link to a file", "a loop of links", "below a file"]
KINDS += ["an overlong name", "a device", "the parent of a file"]
COMMANDS: dict[str, Callable[[Path], Said]] = {
    "run --out": lambda path: asgd_lab("run", "scenario.yaml", "--out", path),
    "run --resume": lambda path: asgd_lab("run", "scenario.yaml", "--out", path, "--resume"),
    "sweep --resume": lambda path: asgd_lab("run", "scenario.yaml", "--out", path, "--resume", "--seeds", "2"),
    "warm_start.run": lambda path: asgd_lab(
        "run", "scenario.yaml", "--out", "o", "--set", f"warm_start={{run: {path}}}"
    ),
    "hardware.compute.run": lambda path: asgd_lab(
        "run", "scenario.yaml", "--out", "o", "--set", f"hardware.compute={{distribution: empirical, run: {path}}}"
    ),
    "compare --out": lambda path: asgd_lab("compare", "scenario.yaml", "--out", path),
    "replay": lambda path: asgd_lab("replay", path),
    "tensorboard": lambda path: asgd_lab("tensorboard", path),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_folder_is_refused_in_a_line_by_every_command_that_takes_one(
    bowl: Path, command: str, kind: str
) -> None:
    path = no_folder(kind)
    before = state(Path())
    said = COMMANDS[command](path)
    assert said.status == 2, said
    assert said.err.count("\n") == 1
    assert state(Path()) == before


@pytest.mark.parametrize("name", ["with a space", "größe", "-dash", "a=b,c", "quote'd"])
def test_odd_names_of_directories_are_as_good_as_others(bowl: Path, name: str) -> None:
    path = Path("parent") / name
    assert asgd_lab("run", bowl, "--out", path).status == 0
    mark(path, "interrupted")
    assert asgd_lab("run", bowl, "--out", path, "--resume").status == 0
    assert asgd_lab("replay", path).status == 0


# ---------------------------------------------------------------- two at once


class Gate:
    """A `git` that waits until it is let through: it stands in the midst of every run's beginning."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._fifo = folder, folder / "gate"
        os.mkfifo(self._fifo)
        git = folder / "bin" / "git"
        git.parent.mkdir()
        git.write_text(f"#!/bin/sh\ntouch {folder}/asked\ncat {self._fifo} > {os.devnull}\nexit 1\n")
        git.chmod(0o755)
        monkeypatch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")

    def await_and_stop(self, program: subprocess.Popen[str]) -> None:
        """Wait until the program stands at the gate, and stop it there: it does not even become impatient."""
        while not (self._folder / "asked").exists():
            assert not is_over(program), finish(program)
        os.kill(program.pid, signal.SIGSTOP)

    def let_through(self, program: subprocess.Popen[str]) -> Said:
        """Let it go on, to its end."""
        os.kill(program.pid, signal.SIGCONT)
        while not is_over(program):
            with contextlib.suppress(OSError):  # nobody stands there just now
                os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))
        return finish(program)


def is_over(program: subprocess.Popen[str]) -> bool:
    try:
        program.wait(0.02)
    except subprocess.TimeoutExpired:
        return False
    return True


PAIRS = {
    "resume and resume": (RESUME, RESUME),
    "run and run": (RUN, RUN),
    "run and resume": (RUN, RESUME),
    "sweep and sweep": ((*RUN, "--seeds", "2", "--jobs", "1"), (*RESUME, "--seeds", "2", "--jobs", "1")),
}


@pytest.mark.parametrize("pair", sample(PAIRS, 1))
def test_of_two_commands_in_one_directory_one_goes_on_and_the_other_gets_a_line(
    bowl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: str
) -> None:
    one, other = PAIRS[pair]
    if pair == "resume and resume":
        (unfinished() / "notes.txt").write_text("mine")
    gate = Gate(tmp_path, monkeypatch)
    first = start(*one, folder=tmp_path)
    try:
        gate.await_and_stop(first)
        before = state(Path("out"))
        second = finish(start(*other, folder=tmp_path))
        assert (second.status, second.err.count("\n")) == (2, 1), second
        assert "in use" in second.err or "is not empty" in second.err
        assert state(Path("out")) == before
        ended = gate.let_through(first)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        if first.poll() is None:
            first.communicate()
    assert ended.status == 0, ended
    runs = [Path("out/seed=3"), Path("out/seed=4")] if pair == "sweep and sweep" else [Path("out")]
    assert [json.loads((run / "manifest.json").read_text())["status"] for run in runs] == ["done"] * len(runs)
    if pair == "resume and resume":
        assert (Path("out") / "notes.txt").read_text() == "mine"
