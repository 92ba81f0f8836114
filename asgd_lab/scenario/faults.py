"""From pydantic's errors to sentences: no word of pydantic's own reaches the reader."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

import asgd_lab.scenario.places as places
from asgd_lab.configuration import MOST
from asgd_lab.errors import either, meant, shortened
from asgd_lab.scenario.keys import Path, dotted, split
from asgd_lab.scenario.places import Place

_MOST = 200  # the most faults of one scenario that are put into words


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its place, and a sentence with the allowed values."""

    path: Path
    message: str
    kind: str = ""  # "unknown" or "missing" key (the first may be the second, misspelt), or "contradiction" of several
    written: str = ""  # the key to show, if it is not that of the path
    point: str = ""  # the point of the sweep, if only that has the fault

    @property
    def key(self) -> str:
        return dotted(self.path)


def show(value: object, limit: int = 40) -> str:
    """A value as YAML would have it, short enough for a sentence."""
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case float() if not math.isfinite(value):
            text = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case dict():
            text = "a mapping" if value else "an empty mapping"
        case list():
            text = "a list" if value else "an empty list"
        case _:
            text = repr(value[:limit] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def faults(error: ValidationError) -> list[Fault]:
    """All faults, unordered; a missing key is left out if an unknown one beside it may be its misspelling."""
    some = itertools.islice(error.errors(include_url=False), _MOST)
    found = [fault for one in some for fault in _translated(one)]
    misspelt = {fault.path[:-1] for fault in found if fault.kind == "unknown"}
    return [fault for fault in found if fault.kind != "missing" or fault.path[:-1] not in misspelt]


def unknown_key(path: Path, place: Place) -> Fault:
    """The fault of a key that `place` does not have, with the nearest that it, or another place, has."""
    key = path[-1]
    if not place.keys:
        return Fault(path, f"unknown key; {dotted(path[:-1])} is {place.expected}, which has no such key", "unknown")
    what = "unknown key"
    hint = meant(key, place.keys)
    homes = [] if hint else list(dict.fromkeys(places.root().homes(str(key))))
    if dotted(path) in homes:  # it is a key of another `name`
        what = f"not a key of {either(place.names)}"
    elif 0 < len(homes) <= 3:
        hint = f"; did you mean {either(homes)}?"
    return Fault(path, f"{what}{hint or ';'} allowed here: {', '.join(place.keys)}", "unknown")


def _translated(error: Mapping[str, Any]) -> Iterator[Fault]:
    path, place = _located(error["loc"])
    value = error["input"]
    match error["type"]:
        case "default_factory_not_called":
            return  # a field computed from another one, and that one has an error of its own
        case "contradiction":
            for key, sentence in error["ctx"]["found"]:
                yield Fault(path + (split(key) if key else ()), sentence, "contradiction")
        case "extra_forbidden":
            yield unknown_key(path, _located(error["loc"][:-1])[1])
        case "missing":
            yield Fault(path, f"is missing; must be {place.expected}{place.meaning}", "missing")
        case "union_tag_not_found":
            misspelt = [key for key in value if meant(key, ["name"])]
            if misspelt:
                message = f"unknown key; did you mean 'name'? it must be {either(place.names)}"
                yield Fault((*path, misspelt[0]), message, "unknown")
            else:
                yield Fault((*path, "name"), f"is missing; must be {either(place.names)}", "missing")
        case "union_tag_invalid":
            name = value["name"]
            hint = meant(name, place.names)
            yield Fault((*path, "name"), f"must be {either(place.names)}; got {show(name)}{hint}")
        case "value_error" | "assertion_error":  # from a user's class
            yield Fault(path, " ".join(str(error["ctx"]["error"]).split()))
        case "less_than_equal" if error["ctx"]["le"] >= MOST:
            yield Fault(path, f"must be at most {MOST:g}; got {show(value)}")
        case "greater_than_equal" if error["ctx"]["ge"] <= -MOST:
            yield Fault(path, f"must be at least {-MOST:g}; got {show(value)}")
        case "finite_number":
            yield Fault(path, f"must be finite: {place.expected}; got {show(value)}")
        case _:
            yield Fault(path, f"must be {place.expected}; got {show(value)}{_hint(value, place, dotted(path))}")


def _located(loc: tuple[str | int, ...]) -> tuple[Path, Place]:
    """Pydantic's location, without the names that choose among mappings, as a path and its place."""
    place = places.root()
    path: Path = ()
    chosen = False
    for part in loc:
        if place.is_choice and not chosen:
            place, chosen = place.chosen(part), True
        else:
            place, path, chosen = place.step(part) or Place(()), (*path, part), False
    return path, place


def _hint(value: object, place: Place, key: str) -> str:
    kinds = {option.get("type") for option in place.options}
    several = isinstance(value, list) or (isinstance(value, str) and re.fullmatch(r"[^,\[\]]+(,[^,\[\]]+)+", value))
    if several and value and "array" not in kinds and not place.mappings:
        values = value if isinstance(value, str) else ",".join(map(show, value)) if isinstance(value, list) else ""
        return f"; for a run of each, --set 'sweep.{shortened(key, 60)}=[{shortened(values, 60)}]'"
    if isinstance(value, str):
        if words := [word for option in place.options for word in option.get("enum", ())]:
            return meant(value, words)
        if kinds & {"integer", "number"} and re.fullmatch(r"[-+]?[\d_]*\.?\d+([eE][-+]?\d+)?", value):
            return "; write it without quotes"
        if "boolean" in kinds and value.lower() in ("yes", "no", "on", "off", "true", "false"):
            return "; write true or false, without quotes"
        if "array" in kinds:
            return f"; write [{value}]"
        if "name" in place.keys and (not place.names or value in place.names):
            return f"; write {{name: {value}, ...}}"
    if isinstance(value, float) and "integer" in kinds and value.is_integer():
        return "; write it without a decimal point or an exponent"
    return ""
