"""Every wrong scenario gets one line: FILE:LINE: key: what is wrong; what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgd_lab.errors import ScenarioError
from asgd_lab.scenario import Document
from tests.scenario.bad_scenarios import BAD, Bad, edited

JARGON = ("Input should", "union_tag", "pydantic", "http", "[type=", "Value error", "Extra inputs", "discriminator")


def placed(case: Bad, folder: Path) -> Path:
    path = folder / "case.yaml"
    if case.directory:
        path.mkdir()
    elif case.text is not None:
        path.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    return path


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_a_bad_scenario_is_refused_with_file_line_key_and_what_is_allowed(case: Bad, tmp_path: Path) -> None:
    path = placed(case, tmp_path)
    with pytest.raises(ScenarioError) as caught:
        Document.read(path).points()
    message = str(caught.value)
    start = case.place(path) + (f"{case.key}: " if case.key else "")
    assert message.startswith(start), message
    assert message.count("\n") == case.errors - 1
    for fragment in case.allowed:
        assert fragment in message[len(start) :], message
    for word in JARGON:
        assert word not in message
    assert len(message) - case.errors * len(str(path)) < 400


def test_the_table_is_as_large_as_it_was_meant_to_be() -> None:
    assert len(BAD) >= 45
    assert len({case.id for case in BAD}) == len(BAD)


def test_what_the_bad_scenarios_are_made_from_is_good(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(edited())
    assert Document.read(path).scenario().workers == 2
