"""Output that nobody can receive ends no work, holds up none, and changes no exit status."""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgd_lab import output
from asgd_lab.output import KEPT_BYTES, Pipe
from asgd_lab.record.run import read_summary
from tests.cli.harness import ENDLESS, PATIENCE_S, QUADRATIC, asgd_lab
from tests.whole import sample

NAME = "größe ✓ \udcff"  # no terminal has all of it
KILL = "{name: kill, worker: 0, at_s: 0.05}"
SWEEP = ("--set", "sweep.seed=[1, 2]")
COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {
    "sim": (("run", "bowl.yaml"), 0),
    "inline": (("run", "bowl.yaml", "--backend", "inline"), 0),
    "process": (("run", "short.yaml"), 0),
    "sweep of one process": (("run", "bowl.yaml", *SWEEP, "--jobs", "1"), 0),
    "sweep of two processes": (("run", "bowl.yaml", *SWEEP, "--jobs", "2"), 0),
    "validate": (("validate", "bowl.yaml"), 0),
    "replay": (("replay", "recorded"), 0),
    "tensorboard": (("tensorboard", "recorded", "--out", "board"), 0),
    "compare": (("compare", "short.yaml", "--repeats", "1", "--set", "sweep.workers=[1]", "--out", "out"), 0),
    "help": (("run", "--help"), 0),
    "list": (("list",), 0),
    "usage": (("run", "--frob"), 2),
    "wrong input": (("run", "bowl.yaml", "--set", "workers=größe✓"), 2),
    "failed run": (
        ("run", "short.yaml", "--set", "faults={on_death: stop, schedule: [{name: kill, worker: 0, at_s: 0.1}]}"),
        1,
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bowl.yaml").write_text(QUADRATIC.replace("bowl", "größe ✓"), encoding="utf-8")
    (tmp_path / "short.yaml").write_text(ENDLESS.replace("seconds: 600", "minibatches: 200"))
    return tmp_path


@contextlib.contextmanager
def no_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def blocked() -> Iterator[int]:
    """A pipe that is full, whose reader never reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 4096)
    os.set_blocking(writing, True)
    yield writing
    os.close(writing)
    os.close(reading)


@contextlib.contextmanager
def no_terminal() -> Iterator[int]:
    """A terminal whose window was closed."""
    ours, theirs = pty.openpty()
    os.close(ours)
    yield theirs
    os.close(theirs)


@contextlib.contextmanager
def nothing() -> Iterator[int]:
    yield -1


RECEIVERS: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
    "closed": nothing,
    "no reader": no_reader,
    "full disk": full_disk,
    "blocked": blocked,
    "no terminal": no_terminal,
}
CASES = [
    *itertools.product(COMMANDS, RECEIVERS, ("stdout", "stderr", "both"), ("utf-8",)),
    *itertools.product(COMMANDS, ["a file"], ("both",), ("latin-1", "ascii", "C")),
]
PRINTS = {"help", "list"}  # and nothing else, so that they fail where the disk is full
WORK = {"sim", "inline", "process", "sweep of one process", "sweep of two processes"}


@pytest.mark.parametrize(("command", "receiver", "which", "encoding"), sample(CASES, 5))
def test_what_is_done_and_its_exit_status_do_not_depend_on_who_hears_of_it(
    command: str, receiver: str, which: str, encoding: str, folder: Path
) -> None:
    arguments, status = COMMANDS[command]
    if "recorded" in arguments:
        assert asgd_lab("run", folder / "bowl.yaml", "--out", folder / "recorded").status == 0
    if command in PRINTS and receiver == "full disk" and which != "stderr":
        status = 1
    if command in WORK:
        arguments = (*arguments, "--out", "out")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if encoding == "C" else {}
    environment = {**os.environ, **({"PYTHONIOENCODING": encoding} if encoding != "C" else {}), **locale}
    with contextlib.ExitStack() as stack:
        heard = stack.enter_context((folder / "heard").open("wb"))
        descriptor = heard.fileno() if receiver == "a file" else stack.enter_context(RECEIVERS[receiver]())
        streams = {"stdout": heard.fileno(), "stderr": heard.fileno()}
        streams |= dict.fromkeys(streams if which == "both" else [which], descriptor)

        def close() -> None:
            for number, name in ((1, "stdout"), (2, "stderr")):
                if streams[name] < 0:
                    os.close(number)

        done = subprocess.run(
            [sys.executable, "-m", "asgd_lab", *arguments],
            stdout=streams["stdout"] if streams["stdout"] >= 0 else None,
            stderr=streams["stderr"] if streams["stderr"] >= 0 else None,
            cwd=folder, env=environment, timeout=PATIENCE_S, check=False, preexec_fn=close,
        )  # fmt: skip
    assert done.returncode == status
    said = (folder / "heard").read_bytes()
    assert b"Traceback" not in said
    assert b"Error: [Errno" not in said
    if command in WORK:
        runs = [each.parent for each in (folder / "out").rglob("summary.json")]
        assert [read_summary(run)["status"] for run in runs] == ["done"] * (2 if "sweep" in command else 1)
    if receiver == "a file":
        assert said


def written(pipe: Pipe, text: str) -> None:
    stream = io.TextIOWrapper(pipe, "ascii", errors="backslashreplace", line_buffering=True)  # type: ignore[type-var]
    stream.write(text)
    stream.flush()
    stream.detach()


def test_what_a_slow_reader_has_not_read_waits_and_is_not_lost() -> None:
    reading, writing = os.pipe()
    room = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    pipe = Pipe(writing)
    pipe.hurries = True
    lines = [f"line {number}\n".encode() for number in range(4 * room // 8)]
    for line in lines:
        pipe.write(line)
    expected = b"".join(lines)
    heard = b""
    while len(heard) < len(expected):
        heard += os.read(reading, 4096)
        pipe.drain(0.0)
    assert heard == expected
    os.close(reading)
    os.close(writing)


def test_what_waits_for_a_reader_is_bounded() -> None:
    with blocked() as descriptor:
        pipe = Pipe(descriptor)
        pipe.hurries = True
        for _ in range(3):
            pipe.write(b"." * (KEPT_BYTES // 2))
        assert len(pipe._waiting) == KEPT_BYTES
        assert pipe.lost is None


def test_what_the_encoding_lacks_is_written_as_an_escape(tmp_path: Path) -> None:
    with (tmp_path / "heard").open("wb") as file:
        written(Pipe(file.fileno()), NAME)
    assert (tmp_path / "heard").read_bytes() == rb"gr\xf6\xdfe \u2713 \udcff"


def test_an_interrupt_just_after_a_write_does_not_repeat_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        write(descriptor, data)
        raise KeyboardInterrupt

    with (tmp_path / "heard").open("wb") as file:
        stream = io.TextIOWrapper(Pipe(file.fileno()), line_buffering=True)  # type: ignore[type-var]
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.write("once\n")
        monkeypatch.undo()
        stream.write("then\n")
        stream.detach()
    assert (tmp_path / "heard").read_text() == "once\nthen\n"


def test_a_command_that_only_prints_fails_if_the_disk_is_full(folder: Path) -> None:
    with full_disk() as descriptor:
        done = subprocess.run(
            [sys.executable, "-m", "asgd_lab", "schema"],
            stdout=descriptor, stderr=subprocess.PIPE, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"standard output: No space left on device\n")


def test_streams_that_are_no_pipes_of_ours_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    output.hurry()
    assert not output.finish()
    print("heard")
    assert capsys.readouterr().out == "heard\n"
