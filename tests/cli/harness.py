"""What the tests of the command line share: the program in this process, and in a session of its own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from typer.testing import CliRunner

from asgd_lab.app.cli import app
from tests import warm

PATIENCE_S = 240.0

QUADRATIC = """\
name: bowl
seed: 3
task: {name: quadratic, curvature: [1.0, 4.0], noise: 0.1}
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {minibatches: 40}
backend: sim
hardware: {compute: {step_s: 0.01}}
"""
# Devices that only wait, long enough that nothing but a signal ends the run.
ENDLESS = """\
name: endless
task: {name: timing, size_bytes: 4000, step_s: 0.002}
algorithm: {name: asgd, n_sync: 2}
workers: 2
budget: {seconds: 600}
backend: {name: process, device: emulated}
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str


def asgd_lab(*arguments: str | Path) -> Said:
    """The command line, called in this process; what is unexpected is raised here."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return Said(result.exit_code, result.stdout, result.stderr)


def start(
    *arguments: str | Path, folder: Path, environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None, inside: Sequence[str] = (), cold: bool = False,
) -> subprocess.Popen[str]:  # fmt: skip
    """The real program, in a session and so in a process group of its own, as a terminal would start it.

    `before` is called in its process first; `inside` is a command that runs the program as its last arguments. It is a
    warm one unless one of these, a variable that Python reads at its start, or `cold` demands a process from nothing.
    """
    variables = {**os.environ, **(environment or {})}
    how: dict[str, Any] = {
        "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder, "env": variables,
        "start_new_session": True,
    }  # fmt: skip
    if not (before or inside or cold) and warm.can_have(variables):
        return warm.Program(arguments, **how)
    return subprocess.Popen([*inside, sys.executable, "-m", "asgd_lab", *map(str, arguments)], preexec_fn=before, **how)


def finish(program: subprocess.Popen[str]) -> Said:
    """Wait for its end."""
    out, err = program.communicate(timeout=PATIENCE_S)
    return Said(program.returncode, out, err)


def await_line(program: subprocess.Popen[str], words: str) -> None:
    """Read what the program says until a line has these words in it."""
    assert program.stdout is not None
    said = []
    for line in program.stdout:
        said.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended without a word of {words!r}: {''.join(said)}{finish(program)}")


def members(session: int) -> list[psutil.Process]:
    """The living processes of a session, the oldest first."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except ProcessLookupError:
            continue
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def crew(program: subprocess.Popen[str]) -> list[psutil.Process]:
    """The workers and the server of a running process backend, in the order in which they were started."""
    helpers = {process.pid for process in psutil.Process(program.pid).children()}  # among them the fork server
    return [process for process in members(program.pid) if process.ppid() in helpers]


def await_end(process: psutil.Process) -> None:
    """Wait for the end of any process, also where somebody else is its parent and may never reap it."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], PATIENCE_S)[0], f"{process} does not end"
    finally:
        os.close(descriptor)


def assert_nobody_is_left(session: int) -> None:
    """The fork server and the resource tracker notice their parent's end a moment after it, and then end."""
    for process in members(session):
        await_end(process)
    assert not members(session)
