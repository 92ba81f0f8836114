"""The check of a data set's options: each name is known, and each value is of its kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgd_lab.errors import ScenarioError, among

Kinds = Mapping[str, tuple[type | str, ...]]
"""For each option the types of its values, or the texts that it may be."""
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def check_options(
    dataset: str, given: Mapping[str, Any], kinds: Kinds, least: Mapping[str, float] | None = None
) -> None:
    """A `ScenarioError` for the first option that the data set does not take, or whose value is none of its kinds.

    `least` has the least values of options that are numbers.
    """
    least = least or {}
    for name, value in given.items():
        where = f"task.dataset_options.{name}"
        if name not in kinds:
            message = f"{dataset} takes no '{name}'{among(name, kinds)}"
            raise ScenarioError.at(where, message)
        fits = type(value) in kinds[name] or (isinstance(value, str) and value in kinds[name])
        if fits and (value == "" or (name in least and value is not None)):
            fits = value != "" and value >= least[name]
        if not fits:
            named = [each for each in kinds[name] if each is not int or float not in kinds[name]]
            allowed = " or ".join(each if isinstance(each, str) else _WORDS[each] for each in named)
            limit = f", at least {least[name]}" if name in least else ""
            raise ScenarioError.at(where, f"must be {allowed}{limit}; got {value!r}")
