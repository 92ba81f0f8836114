"""What is written reads back to the same scenario, whatever it says; and it is what the published schema allows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import given, settings

from asgd_lab.scenario import Document, Scenario, json_schema
from asgd_lab.scenario.writing import dump
from tests.scenario.strategies import scenarios

SCHEMA = json_schema()


def read(text: str) -> Document:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.yaml"
        path.write_text(text, encoding="utf-8", newline="")
        return Document.read(path)


@settings(max_examples=150)
@given(scenarios())
def test_a_dumped_scenario_reads_back_equal(data: dict[str, Any]) -> None:
    scenario = Scenario.model_validate(data)
    text = Document.dump(scenario)
    again = read(text).scenario()
    assert again == scenario
    assert Document.dump(again) == text


@settings(max_examples=50)
@given(scenarios())
def test_plain_yaml_of_a_good_scenario_is_read_as_that_scenario(data: dict[str, Any]) -> None:
    assert read(dump(data)).scenario() == Scenario.model_validate(data)


@settings(max_examples=50)
@given(scenarios())
def test_a_good_scenario_and_its_dump_are_what_the_schema_allows(data: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.validate(data)
    validator.validate(Scenario.model_validate(data).model_dump())
