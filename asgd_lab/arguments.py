"""Arguments of the Python interface: a wrong one is a `ScenarioError` of one line that begins with its name."""

from __future__ import annotations

import contextlib
import math
import numbers
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from asgd_lab.errors import Interrupted, ScenarioError, shown

AnyPath = str | os.PathLike[str]
_OPTIONS = re.compile(r"(?<!\S)--(out|resume|seeds|jobs|repeats)\b(?![\w/.-])")
F = TypeVar("F", bound=Callable[..., Any])


def count(name: str, value: object, most: int | None = None) -> int:
    """A number of things, at least 1; numpy's integers are whole numbers too."""
    limits = "at least 1" + ("" if most is None else f" and at most {most:,}")
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    number = int(value) if is_whole else 0  # type: ignore[call-overload]
    if number < 1 or (most is not None and number > most):
        raise ScenarioError(f"{name}: must be a whole number, {limits}; got {shown(value)}")
    return number


def number(name: str, value: object) -> float:
    """A number that is finite, as a float."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a huge integer
            if math.isfinite(found := float(value)):
                return found
    raise ScenarioError(f"{name}: must be a finite number; got {shown(value)}")


def path(name: str, value: object) -> Path:
    """A path, from text or from an object with `__fspath__`."""
    if isinstance(value, str | os.PathLike) and not (isinstance(value, str) and not value):
        try:
            return Path(os.fsdecode(value))
        except Exception:  # `__fspath__` is anybody's code
            pass
    raise ScenarioError(f"{name}: must be a path; got {shown(value)}")


def flag(name: str, value: object) -> bool:
    """A truth value; numpy's are truth values too."""
    if isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")):
        return bool(value)
    raise ScenarioError(f"{name}: must be True or False; got {shown(value)}")


def function(name: str, value: F | None) -> F | None:
    """A function to call, or None."""
    if value is not None and not callable(value):
        raise ScenarioError(f"{name}: must be a function; got {shown(value)}")
    return value


@contextlib.contextmanager
def named_as_in_python() -> Iterator[None]:
    """Name arguments in errors as Python does: out, not --out."""
    try:
        yield
    except (ScenarioError, Interrupted) as error:
        error.args = tuple(_as_argument(line) for line in error.args)
        raise


def _as_argument(line: str) -> str:
    if line.startswith("--from:"):
        return f"source{line.removeprefix('--from')}"
    if line.startswith("--"):
        return _OPTIONS.sub(r"\1", line)
    return line.replace("--resume goes on", "resume=True goes on")
