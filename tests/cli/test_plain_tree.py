"""A plain tree is enough: the program runs where nothing of it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import asgd_lab
from asgd_lab.backends.real.preload import FIRST

from .harness import PATIENCE_S, QUADRATIC

PACKAGE = Path(asgd_lab.__file__).parent
PRELOADED = f"""
import multiprocessing, sys
from asgd_lab.backends.real.preload import preload
preload([])
child = multiprocessing.get_context("forkserver").Process(
    target=exec, args=("import sys; sys.exit(0 if {FIRST!r} in sys.modules else 3)",)
)
child.start()
child.join()
sys.exit(child.exitcode)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package, beside nothing."""
    shutil.copytree(PACKAGE, tmp_path / "tree" / PACKAGE.name)
    return tmp_path / "tree"


def python(*arguments: str, folder: Path, path: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Python without its site-packages: what is imported of libraries is found, and nothing that is installed here."""
    root = str(PACKAGE.parent)
    libraries = [each for each in sys.path if Path(each or os.curdir).resolve() != Path(root)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, path), *libraries])}
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_the_program_runs_from_a_plain_tree(tree: Path) -> None:
    said = python("-m", "asgd_lab", "--version", folder=tree)
    assert (said.returncode, said.stdout) == (0, f"asgd-lab {asgd_lab.__version__}\n"), said.stderr
    (tree / "bowl.yaml").write_text(QUADRATIC, encoding="utf-8")
    said = python("-m", "asgd_lab", "run", "bowl.yaml", "--set", "backend=process", "--out", "out", folder=tree)
    assert said.returncode == 0, said.stderr
    assert (tree / "out" / "summary.json").exists()


@pytest.mark.parametrize("is_here", [True, False], ids=["current directory", "elsewhere"])
def test_the_fork_server_of_a_plain_tree_imports_the_package(tree: Path, tmp_path: Path, is_here: bool) -> None:
    said = python("-c", PRELOADED, folder=tree if is_here else tmp_path, path=() if is_here else (tree,))
    assert said.returncode == 0, said.stderr
