"""The real program on a terminal of a stated width, and into a pipe."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests import warm
from tests.cli.harness import PATIENCE_S, QUADRATIC

SWEEP = QUADRATIC + "sweep: {workers: [1, 2], algorithm.n_sync: [1, 2], hardware.compute.step_s: [0.01]}\n"


def on_a_terminal(width: int, folder: Path, *arguments: str) -> list[str]:
    """The lines that the program leaves on a terminal so wide, without colours."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    program = warm.Program(
        arguments,
        stdin=its, stdout=its, stderr=its, cwd=folder, env=environment | {"TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    shown = b""
    try:
        while select.select([ours], [], [], PATIENCE_S)[0]:
            shown += os.read(ours, 65_536)
    except OSError:  # a terminal whose other end is closed
        pass
    finally:
        os.close(ours)
        program.kill()
        program.wait(PATIENCE_S)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "\n").splitlines()


@pytest.mark.parametrize("width", [60, 220])
def test_a_sweep_fits_its_terminal(width: int, tmp_path: Path) -> None:
    (tmp_path / "bowl.yaml").write_text(SWEEP)
    lines = on_a_terminal(width, tmp_path, "run", "bowl.yaml", "--seeds", "2", "--jobs", "1", "--out", "out")
    drawn = [line for line in lines if set(line) & set("│┃┏└━")]
    assert drawn, lines
    assert max(map(cell_len, drawn)) <= width
    assert "…" not in "".join(lines)
    assert ("left out for want of width: " in "\n".join(lines)) == (width < 220)
    assert any("test loss" in line for line in drawn)
    assert "recorded in out" in lines


def test_what_can_be_named_fits_its_terminal(tmp_path: Path) -> None:
    lines = on_a_terminal(60, tmp_path, "list", "rules")
    assert max(map(cell_len, lines)) <= 60
    assert "…" not in "".join(lines)
    assert any(line.startswith("adadelta  ") for line in lines)


def test_into_a_pipe_nothing_is_folded_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "bowl.yaml").write_text(SWEEP)
    command = ("run", "bowl.yaml", "--seeds", "2", "--jobs", "1", "--out", "out")
    said = warm.run(command, cwd=tmp_path, env=os.environ | {"COLUMNS": "40"})
    assert said.returncode == 0, said.stderr
    rows = [line for line in said.stdout.splitlines() if line.startswith("│ workers=")]
    assert len(rows) == 4 + 3
    assert all(row.count("│") == 11 for row in rows[:4])
    assert "left out" not in said.stdout
    assert "hardware.compute.step_s=0.01" in rows[0]
