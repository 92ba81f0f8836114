"""The same scenario is the same however it is written; of another one, the first key that differs is named."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd_lab.configuration import Folder, Part
from asgd_lab.scenario import Document, Scenario, anchored, first_difference, folders

from .strategies import scenarios

BASE: dict[str, Any] = {
    "name": "bowl",
    "task": {"name": "classification", "dataset": "digits", "data_folder": "data", "model_options": {"width": 3}},
    "algorithm": {"name": "asgd", "n_sync": 2},
    "workers": 2,
    "budget": {"minibatches": 40},
    "warm_start": {"run": "t1"},
    "backend": "sim",
    "hardware": {"compute": {"distribution": "empirical", "run": "t2"}},
}


def rewritten(value: Any, draw: random.Random) -> str:
    """YAML in flow style that says the same: keys in any order, text quoted one way or the other, a comment a line."""
    if isinstance(value, dict):
        items = list(value.items())
        draw.shuffle(items)
        body = ",".join(f" {rewritten(key, draw)}: {rewritten(item, draw)} # remark\n" for key, item in items)
        return "{" + re.sub(r"# remark\n,", ", # remark\n", body) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(rewritten(item, draw) for item in value) + "]"
    if isinstance(value, str) and value.isprintable() and "'" not in value and draw.random() < 0.5:
        return f"'{value}'"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    return json.dumps(value)


@given(data=scenarios(), seed=st.integers(0, 99))
def test_order_of_keys_quotes_and_comments_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], seed: int
) -> None:
    path = tmp_path_factory.mktemp("written") / "scenario.yaml"
    scenario = Scenario.model_validate(data)
    path.write_text(rewritten(scenario.model_dump(), random.Random(seed)), encoding="utf-8")
    assert first_difference(Document.read(path).scenario(), scenario) is None


@given(data=scenarios())
def test_keys_that_are_not_written_have_their_defaults(data: dict[str, Any]) -> None:
    short = Scenario.model_validate(data)
    assert first_difference(short, Scenario.model_validate(short.model_dump())) is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", "bowls", ("name", "'bowl'", "'bowls'")),
        ("workers", 3, ("workers", "2", "3")),
        ("seed", 1, ("seed", "0", "1")),
        ("description", "why", ("description", "''", "'why'")),
        ("budget", {"minibatches": 41}, ("budget.minibatches", "40", "41")),
        ("budget", {"minibatches": 40, "updates": 7}, ("budget.updates", "null", "7")),
        ("algorithm", {"name": "asgd", "n_sync": 3}, ("algorithm.n_sync", "2", "3")),
        ("task", BASE["task"] | {"batch_size": 33}, ("task.batch_size", "32", "33")),
        ("task", BASE["task"] | {"model_options": {}}, ("task.model_options.width", "3", "absent")),
        ("task", BASE["task"] | {"model_options": {"width": True}}, ("task.model_options.width", "3", "True")),
        ("warm_start", {"run": "x" * 99}, ("warm_start.run", "'t1'", "'" + "x" * 59 + "...")),
        ("warm_start", None, ("warm_start", "{'minibatches': None, 'run': 't1'}", "null")),
    ],
)
def test_the_first_key_that_differs_is_named_with_both_values(key: str, value: Any, said: tuple[str, str, str]) -> None:
    one, other = Scenario.model_validate(BASE), Scenario.model_validate({**BASE, key: value})
    assert first_difference(one, other) == said
    back = first_difference(other, one)
    assert back is not None
    assert back.key == said[0]


def parts(kind: type[Part]) -> list[type[Part]]:
    return [kind, *(inner for each in kind.__subclasses__() for inner in parts(each))]


def test_every_key_that_is_a_path_is_marked_as_one() -> None:
    """By its own description: whoever adds such a key is reminded."""
    marked, described = set(), set()
    for part in parts(Part):
        for name, field in part.model_fields.items():
            if Folder() in field.metadata:
                marked.add(f"{part.__name__}.{name}")
            text = field.description or ""
            if re.match(r"(A run directory|A directory|A file|The folder of)", text):
                described.add(f"{part.__name__}.{name}")
    assert marked == described >= {"WarmStart.run", "Compute.run", "Classification.data_folder"}


def test_every_path_becomes_absolute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    scenario = Scenario.model_validate(BASE)
    assert [key for key, _ in folders(scenario)] == ["task.data_folder", "warm_start.run", "hardware.compute.run"]
    found = anchored(scenario)
    assert [value for _, value in folders(found)] == [f"{tmp_path}/{name}" for name in ("data", "t1", "t2")]
    monkeypatch.chdir("/")
    assert anchored(found) is found
    at_home = Scenario.model_validate({**BASE, "warm_start": {"run": "~/x/../t1/"}})
    assert dict(folders(anchored(at_home)))["warm_start.run"] == "/home/somebody/t1"


def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(odd)
    monkeypatch.chdir(os.fsdecode(odd))
    with pytest.raises(Exception, match="is not UTF-8") as refused:
        anchored(Scenario.model_validate(BASE))
    assert getattr(refused.value, "key", None) == "task.data_folder"
