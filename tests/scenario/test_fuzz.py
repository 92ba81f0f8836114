"""The shipped scenarios with random damage: validate answers with a status, never with a traceback."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from asgd_lab.scenario import writing
from tests.cli.harness import asgd_lab
from tests.whole import sample

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "scenarios").rglob("*.yaml"))
MUTATIONS = 40 * len(SHIPPED) if len(SHIPPED) * 40 > 2000 else 2000
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    10**30,
    1e308,
    5e-324,
    "",
    "x" * 5000,
    "subprocess:check_output",
    [],
    {},
    [[]],
    {"name": 3},
]
TOKENS = [
    "&a ",
    "*a",
    "<<: ",
    "!!python/object:os.system ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\t",
    "\0",
    "'",
    '"',
    "%",
    "\x85",
]


def places_in(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The paths of all keys and items."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, inner in items for each in [(*path, key), *places_in(inner, (*path, key))]]


def mutated(number: int) -> bytes:
    """A shipped scenario with one to three changes of its values, keys, types or bytes, from a seed."""
    rng = random.Random(number)
    text = SHIPPED[number % len(SHIPPED)].read_text(encoding="utf-8")
    if rng.random() < 0.35:
        content = bytearray(text.encode())
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(content))
            if rng.random() < 0.5:
                content[place] = rng.randrange(256)
            else:
                content[place:place] = rng.choice(TOKENS).encode()
        return bytes(content)
    data = YAML(typ="safe", pure=True).load(text)
    for _ in range(rng.randint(1, 3)):
        *above, last = rng.choice(places_in(data))
        holder = data
        for part in above:
            holder = holder[part]
        change = rng.random()
        if change < 0.6:
            holder[last] = rng.choice(VALUES)
        elif change < 0.8 and isinstance(holder, dict):
            holder[f"{last}x"] = holder.pop(last)
        else:
            del holder[last]
        if not places_in(data):
            break
    return writing.dump(data).encode()


@pytest.mark.parametrize("number", sample(range(MUTATIONS), 60))
def test_a_damaged_scenario_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "x.yaml"
    path.write_bytes(mutated(number))
    began = time.process_time()
    said = asgd_lab("validate", path)
    assert said.status in (0, 2), said
    assert all(len(line) <= 1010 for line in said.err.splitlines())
    assert time.process_time() - began < 60.0
