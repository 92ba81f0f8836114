"""The published JSON Schema says what every key means, and the package that makes it starts without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from asgd_lab.scenario import Scenario, json_schema
from asgd_lab.scenario.hardware import Hardware

SCHEMA = json_schema()


def fields() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from SCHEMA["properties"].items()
    for name, part in SCHEMA["$defs"].items():
        for key, schema in part["properties"].items():
            yield f"{name}.{key}", schema


@pytest.mark.parametrize(("key", "schema"), list(fields()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_key_says_what_it_means(key: str, schema: dict[str, Any]) -> None:
    assert len(schema["description"]) > 10
    assert schema["description"].endswith(".")


@pytest.mark.parametrize(("key", "schema"), list(fields()), ids=lambda value: value if isinstance(value, str) else "")
def test_the_unit_in_a_key_is_in_its_description(key: str, schema: dict[str, Any]) -> None:
    if key.endswith("_s") and not key.endswith("_per_s"):
        assert "second" in schema["description"].lower()
    if "bytes" in key:
        assert "bytes" in schema["description"].lower()


def test_it_is_a_schema_of_the_draft_it_names_and_its_examples_are_scenarios() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "asgd-lab scenario"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for example in SCHEMA["examples"]:
        jsonschema.Draft202012Validator(SCHEMA).validate(example)
        Scenario.model_validate(example)


def scenario(**keys: Any) -> dict[str, Any]:
    return {
        "name": "study",
        "task": {"name": "quadratic", "curvature": [1.0]},
        "algorithm": {"name": "asgd", "n_sync": 1},
        "budget": {"updates": 1},
    } | keys


@pytest.mark.parametrize(
    ("keys", "good"),
    [
        ({"backend": "inline"}, True),
        ({"backend": {"name": "inline", "device": "cuda"}}, True),
        ({"backend": "simm"}, False),
        ({"algorithm": {"name": "asgd", "n_sync": 1, "rule": ["scale", {"name": "scale", "factor": 2}]}}, True),
        ({"algorithm": {"name": "asgd", "n_sync": 1, "rule": ["sgd"]}}, False),
        ({"algorithm": {"name": "asgd", "n_sync": 1, "bound": 3}}, False),
        ({"task": {"name": "quadratic", "curvature": [1], "optimizer": {"name": "Adam", "lr": 1, "eps": 2}}}, True),
        ({"task": {"name": "quadratic", "curvature": [1], "optimizer": {"lr": 1}}}, False),
        ({"workers": 0}, False),
        ({"workrs": 1}, False),
    ],
)
def test_the_schema_and_the_scenario_agree(keys: dict[str, Any], good: bool) -> None:
    data = scenario(**keys)
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(data) == good
    if good:
        Scenario.model_validate(data)
    else:
        with pytest.raises(ValidationError):
            Scenario.model_validate(data)


def test_a_scenario_cannot_be_changed() -> None:
    made = Scenario.model_validate(scenario())
    with pytest.raises(ValidationError):
        made.workers = 3  # type: ignore[misc]


def test_parts_can_be_made_without_a_file() -> None:
    assert Hardware().compute.cv == 0.1
    with pytest.raises(ValidationError, match="belongs to distribution lognormal"):
        Hardware.model_validate({"compute": {"cv": 0.1}})


def test_nothing_slow_is_imported() -> None:
    code = (
        "import sys; from asgd_lab.scenario import Document; list(Document.read(sys.argv[1]).points());"
        "print(*sorted({'torch', 'pandas', 'simpy', 'scipy'} & set(sys.modules)))"
    )
    file = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
    found = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
