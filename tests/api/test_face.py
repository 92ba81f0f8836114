"""The package's face: public names, imported when they are used; examples in docstrings."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import asgd_lab
from asgd_lab import api, catalogue, composed, validation
from tests.api import user_script

HEAVY = {"torch", "pandas", "pyarrow", "scipy", "simpy", "matplotlib", "pydantic", "numpy"}


@pytest.mark.parametrize("code", ["import asgd_lab", "from asgd_lab import ScenarioError, RunFailed"])
def test_the_import_takes_no_library_with_it(code: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sorted({HEAVY} & set(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.split() == []


def test_every_public_name_is_there_and_in_the_stub() -> None:
    stub = ast.parse(Path(asgd_lab.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    stated = {each.asname for node in ast.walk(stub) if isinstance(node, ast.ImportFrom) for each in node.names}
    assert stated | {"__version__"} == set(asgd_lab.__all__)
    for name in asgd_lab.__all__:
        assert getattr(asgd_lab, name) is not None
        assert name in dir(asgd_lab)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        asgd_lab.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_users_script_that_is_type_checked_names_every_public_name() -> None:
    tree = ast.parse(Path(user_script.__file__).read_text(encoding="utf-8"))
    named = {ast.unparse(node).removeprefix("asgd_lab.") for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(asgd_lab.__all__) <= named


def test_the_examples_in_docstrings_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (api, composed, catalogue, validation):
        found = doctest.testmod(module)
        assert found.attempted > 0
        assert found.failed == 0
