"""What a scenario names of the user's own code, as package.module:name."""

from __future__ import annotations

import importlib
import operator
import os
import sys
from collections.abc import Callable
from typing import Any

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import near, one_line


def imported(key: str, name: str, what: str) -> Callable[..., Any]:
    """The callable; a `ScenarioError` at `key` says why there is none. `what` is a sentence on what it should do."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ScenarioError.at(key, f"'{name}' is not of the form package.module:factory")
    # As `python -m` does, and to stay: a module may import its neighbours late.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ScenarioError.at(key, f"{module_name} cannot be imported: {one_line(error)}") from error
    try:
        found = operator.attrgetter(attribute)(module)
    except AttributeError as error:
        raise ScenarioError.at(key, f"{module_name} has no '{attribute}'{near(attribute, vars(module))}") from error
    if not callable(found):
        raise ScenarioError.at(key, f"{name} is not callable; {what}")
    callable_: Callable[..., Any] = found
    return callable_
