"""What a module's code keeps in Python attributes is seen, however it is kept."""

from __future__ import annotations

import functools
import importlib
import itertools
import random
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from asgd_lab.tasks.python_state import globals_of, python_state


class Slots:
    __slots__ = ("__private", "n")

    def __init__(self) -> None:
        self.n = self.__private = 0

    def step(self) -> None:
        self.n += 1

    def step_private(self) -> None:
        self.__private += 1


class Counts:
    n = 0

    def step(self) -> None:
        self.n += 1

    def __next__(self) -> int:
        self.n += 1
        return self.n

    def __iter__(self) -> Counts:
        return self


def counting() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def closing_over(kept: list[int]) -> Callable[[], list[int]]:
    return lambda: kept


def first(value: Any) -> None:
    value[0] += 1


KEPT: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "slots": (Slots(), Slots.step),
    "private slots": (Slots(), Slots.step_private),
    "attributes": (Counts(), Counts.step),
    "an iterator of one's own": (Counts(), next),
    "a bound method": (Counts().step, lambda method: method()),
    "a closure": (closing_over([0]), lambda function: first(function())),
    "a partial": (functools.partial(print, [0]), lambda partial: first(partial.args[0])),
    "a list": ([0], first),
    "a dict": ({0: 0}, first),
    "a set": ({1}, lambda kept: kept.add(2)),
    "a deque": (deque([1]), lambda kept: kept.append(2)),
    "an array": (array("i", [1]), first),
    "a bytearray": (bytearray(b"a"), first),
    "numbers": (np.zeros(2), first),
    "a tensor": (torch.zeros(2), first),
    "random.Random": (random.Random(1), random.Random.random),
    "a generator of numpy": (np.random.default_rng(1), lambda kept: kept.random()),
    "a generator of torch": (torch.Generator(), lambda kept: torch.rand(1, generator=kept)),
    "a generator": (counting(), next),
    "itertools.count": (itertools.count(), next),
    "itertools.cycle": (itertools.cycle([1, 2, 3]), next),
    "itertools.islice": (itertools.islice(range(9), 5), next),
    "of a list": (iter([1, 2, 3]), next),
    "of a range": (iter(range(9)), next),
    "of a dict": (iter({1: 2, 3: 4}), next),
    "enumerate": (enumerate([1, 2]), next),
    "zip": (zip([1, 2], [3, 4], strict=True), next),
    "map": (map(str, [1, 2]), next),
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_kept_in_an_attribute_is_seen_to_change_and_to_stay(kind: str) -> None:
    module = nn.Linear(1, 1)
    module.kept, change = KEPT[kind]
    before = python_state(module)
    assert python_state(module) == before, "looking changes nothing"
    change(module.kept)
    assert python_state(module) != before


class OfItsClass(nn.Linear):
    calls = 0
    kept: ClassVar[list[int]] = [0]


def calls_more() -> None:
    OfItsClass.calls += 1


@pytest.mark.parametrize("change", [calls_more, lambda: first(OfItsClass.kept)])
def test_what_a_class_keeps_is_seen(change: Callable[[], None]) -> None:
    module = nn.Sequential(OfItsClass(1, 1))
    before = python_state(module)
    assert python_state(module) == before
    change()
    assert python_state(module) != before


def test_what_a_hook_closes_over_is_seen() -> None:
    module, seen = nn.Linear(1, 1), [0]
    module.register_forward_hook(lambda *_: first(seen))
    before = python_state(module)
    module(torch.ones(1, 1))
    assert python_state(module) != before


def test_a_default_argument_that_is_kept_is_seen() -> None:
    def counting_calls(kept: list[int] = [0]) -> None:  # noqa: B006
        first(kept)

    module = nn.Linear(1, 1)
    module.function = counting_calls  # type: ignore[assignment]
    before = python_state(module)
    counting_calls()
    assert python_state(module) != before


REPLACED = {
    "a range": (range(9), range(1, 9)),
    "a slice": (slice(9), slice(1, 9)),
    "an integer of numpy": (np.int64(1), np.int64(2)),
    "a number of numpy": (np.float32(1), np.float32(2)),
    "a fraction": (Fraction(1, 3), Fraction(2, 3)),
    "a decimal number": (Decimal("1.0"), Decimal("1.1")),
}


@pytest.mark.parametrize("kind", REPLACED)
def test_a_value_that_another_takes_the_place_of_is_seen_to_change_and_to_stay(kind: str) -> None:
    module = nn.Linear(1, 1)
    module.kept, other = REPLACED[kind]
    before = python_state(module)
    assert python_state(module) == before
    module.kept = other
    assert python_state(module) != before


GLOBALS: dict[str, tuple[str, str]] = {
    "a number": ("kept = 0", "kept += 1"),
    "a text": ("kept = ''", "kept += 'a'"),
    "a list": ("kept = []", "kept.append(1)"),
    "a nested dict": ("kept = {'a': {'b': 0}}", "kept['a']['b'] += 1"),
    "a set": ("kept = set()", "kept.add(1)"),
    "a tensor": ("kept = torch.zeros(2)", "kept += 1"),
    "a large tensor": ("kept = torch.zeros(50_000)", "kept += 1"),
    "an array": ("kept = np.zeros(2)", "kept[0] = 1"),
    "a long list": ("kept = list(range(50_000))", "kept.append(1)"),
    "random.Random": ("kept = random.Random(1)", "kept.random()"),
    "a generator of torch": ("kept = torch.Generator()", "torch.rand(1, generator=kept)"),
    "a name that is new": ("", "kept = 1"),
}
CODE = """
import random, torch, numpy as np
from torch import nn
{kept}
def count():
    global kept
    {change}
def idle(): pass
"""
MODEL = """
class Model(nn.Linear): pass
"""


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", GLOBALS)
def test_what_lies_in_a_global_of_ones_own_code_is_seen(
    kind: str, apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, change = GLOBALS[kind]
    code, name = CODE.format(kept=kept, change=change), f"own_globals_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}_counts.py").write_text(code)
    model = f"from torch import nn\nfrom {name}_counts import idle{MODEL}" if apart else code + MODEL
    (tmp_path / f"{name}.py").write_text(model)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(name).Model(1, 1)
    before = python_state(module)
    assert python_state(module) == before
    importlib.import_module(f"{name}_counts" if apart else name).count()
    assert python_state(module) != before


def test_globals_of_libraries_are_left_alone() -> None:
    assert globals_of([nn.Linear, np.zeros, random.random, python_state, pytest.fixture], set()) == []
