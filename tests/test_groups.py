"""Tests of one group run in one process: those that take every core, and those that share what is dear to make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = """\
import os
from pathlib import Path
import pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(6))
def test_it(number):
    Path(__file__).with_name(f"ran-in-{os.getpid()}").touch()
"""


def test_a_group_runs_in_one_process(tmp_path: Path) -> None:
    """Which the pinned versions of pytest and its plugin have to agree on: 9.2.0 and 3.8.0 forget the groups."""
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
    assert len(list(tmp_path.glob("ran-in-*"))) == 1
