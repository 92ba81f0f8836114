"""The table of what researchers bring says what its cases show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.outside.own_cases import CASES, HEAD, TABLE, Case, row, tried
from tests.whole import WHOLE, sample

SLOW = {"torch.compile, inductor"}  # minutes on a busy machine
QUICK = [case for case in CASES if WHOLE or case.name not in SLOW]


def rows() -> dict[str, str]:
    """The table's lines, by the names of their cases."""
    text = TABLE.read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    return {line.split(" | ")[0].removeprefix("| "): line for line in text.removeprefix(HEAD).splitlines()}


def test_the_table_has_every_case() -> None:
    assert list(rows()) == [case.name for case in CASES], "run `python -m tests.outside.own_cases`"


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("case", sample(QUICK, 2), ids=lambda case: case.name)
def test_the_table_says_what_a_case_shows(tmp_path: Path, case: Case) -> None:
    if "Hugging Face" in case.name:
        pytest.importorskip("transformers")
    assert row(case, tried(case, tmp_path)) == rows()[case.name]
