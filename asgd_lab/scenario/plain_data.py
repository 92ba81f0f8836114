"""Values of a Python program to plain data, as a YAML file would have it; any other value is refused with its place."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from asgd_lab.choices import Chosen, has_class_of_ours
from asgd_lab.errors import ScenarioError, shown
from asgd_lab.scenario.keys import Path, dotted, subscripts
from asgd_lab.scenario.source import MOST_CHARACTERS, MOST_LEVELS, MOST_NUMBER

KINDS = "text, a number, True, False, None, a list or a mapping"


def refused(value: object, key: str) -> Any:
    """Refuse a value that has no plain form; the default for `Plain.stand_in`."""
    raise ScenarioError(f"must be plain data ({KINDS}); got {_described(value)}")


@dataclass(slots=True)
class Plain:
    """Plain data of one value, and the order of its keys.

    `begin` is the beginning of messages: the value's own place, and `key` its dotted key in the scenario. `stand_in`
    returns what stands for a class, a function or another object at a dotted key, or raises a `ScenarioError`.
    """

    begin: str
    stand_in: Callable[[object, str], Any] = refused
    key: str = ""
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _characters: int = 0

    def of(self, value: object, path: Path = ()) -> Any:
        """The plain form: paths and devices as text, arrays as lists, numpy's and torch's numbers as Python's."""
        self.positions.setdefault(path, (len(self.positions) + 1, 1))
        self._count(2)
        if len(path) > MOST_LEVELS:
            raise self._error(path[:3], "is nested too deeply, or contains itself")
        match value:
            case None:
                return None
            case bool():
                return bool(value)
            case str():
                return self._text(str.__str__(value), path)
            case int():
                return self._whole(int(value), path)
            case float():
                return float(value)
            case Mapping():
                return {self._key(key, path): self.of(one, (*path, str(key))) for key, one in value.items()}
            case list() | tuple() | range():
                self._check_length(len(value), path)
                return [self.of(one, (*path, index)) for index, one in enumerate(value)]
            case BaseModel():
                return self.of(_given(value), path)
            case os.PathLike():
                return self._text(self._file(value, path), path)
            case numbers.Integral():
                return self._whole(int(value), path)
            case numbers.Real():
                return float(value)
        return self._of_library(value, path)

    def _file(self, value: os.PathLike[Any], path: Path) -> str:
        try:
            return os.fsdecode(value)
        except Exception as error:  # `__fspath__` is anybody's code
            raise self._error(path, f"is no path: {type(error).__name__}") from error

    def _of_library(self, value: Any, path: Path) -> Any:
        """Numbers, arrays, series and devices of numpy, pandas and torch, of which none is imported; other objects by
        their names.
        """
        kind = type(value)
        library = kind.__module__.partition(".")[0]
        if library in ("numpy", "torch", "pandas") and hasattr(value, "tolist") and hasattr(value, "shape"):
            self._check_length(sum(value.shape) and _size(value.shape), path)
            try:
                return self.of(value.tolist(), path)
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                raise self._error(path, f"cannot be read: {error}") from error
        if library == "torch" and kind.__name__ == "device":
            return str(value)
        try:
            return self.stand_in(value, ".".join(filter(None, (self.key, dotted(path)))))
        except ScenarioError as error:
            raise self._error(path, str(error)) from None

    def _key(self, key: object, path: Path) -> str:
        if not isinstance(key, str):
            raise self._error(path, f"has a key that is not text: {shown(key)}")
        return self._text(str.__str__(key), path)

    def _text(self, text: str, path: Path) -> str:
        self._count(len(text))
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._error(path, "is text that UTF-8 cannot hold") from None
        return text

    def _whole(self, number: int, path: Path) -> int:
        if abs(number) >= MOST_NUMBER:
            raise self._error(path, "has more than 300 digits; no number of a scenario is as large")
        self._count(len(str(number)))
        return number

    def _check_length(self, length: int, path: Path) -> None:
        if length > MOST_CHARACTERS:
            raise self._error(path, f"has {length:,} items; no scenario is as long")

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > 2 * MOST_CHARACTERS:
            raise ScenarioError(f"{self.begin}: has more than {MOST_CHARACTERS:,} characters; no scenario is as long")

    def _error(self, path: Path, message: str) -> ScenarioError:
        return ScenarioError.at(dotted(path), f"{self.begin}{subscripts(path)}: {message}")


def _given(part: BaseModel) -> dict[str, Any]:
    """The keys that a part of a scenario was made with; a user's class stands for its name."""
    given = {key: getattr(part, key) for key in (*type(part).model_fields, *(part.model_extra or ()))}
    given = {key: value for key, value in given.items() if key in part.model_fields_set}
    if isinstance(part, Chosen) and not has_class_of_ours(part):
        given["name"] = type(part)
    return given


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _described(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    named = getattr(value, "__qualname__", None)
    if callable(value) and isinstance(named, str):
        return f"the function {named}"
    return f"a {type(value).__qualname__}"
