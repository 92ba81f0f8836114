"""The allowed values at each key of a scenario, for error messages: a walk through its JSON Schema."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asgd_lab import choices
from asgd_lab.choices import USERS_NAME
from asgd_lab.configuration import MOST, names_in
from asgd_lab.errors import either
from asgd_lab.scenario.schema import json_schema


@dataclass(frozen=True, slots=True)
class Place:
    """One key of the scenario: the alternatives that its schema offers, references followed and null left out."""

    options: tuple[Mapping[str, Any], ...]
    default: Any = None
    description: str = ""

    @property
    def mappings(self) -> tuple[Mapping[str, Any], ...]:
        """The alternatives that are mappings, except the one for users' own classes."""
        return tuple(one for one in self.options if one.get("type") == "object" and not _is_of_anybody(one))

    @property
    def names(self) -> tuple[str, ...]:
        """The allowed values of the key `name` if it chooses among mappings or is an enumeration, else ().

        Not the package.module:Name of a class that happens to be loaded, unless that is the only one.
        """
        schemas = [one["properties"]["name"] for one in self.mappings if "name" in one.get("properties", ())]
        found = sorted(name for one in schemas for name in names_in(one))
        return tuple([name for name in found if ":" not in name] or found)

    @property
    def is_choice(self) -> bool:
        """Whether `name` chooses a mapping."""
        return any("const" in one.get("properties", {}).get("name", ()) for one in self.mappings)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a mapping at this place."""
        return tuple(dict.fromkeys(key for one in self.mappings for key in one.get("properties", ())))

    def chosen(self, name: object) -> Place:
        """This place once `name` has chosen its mapping."""
        return Place(tuple(one for one in self.mappings if one["properties"]["name"].get("const") == name))

    def step(self, part: str | int) -> Place | None:
        """The place at a key or an index below this one; None where there is none."""
        if isinstance(part, int):
            found = [one["items"] for one in self.options if one.get("type") == "array"]
        else:
            found = [one["properties"][part] for one in self.mappings if part in one.get("properties", ())]
            if not found:
                others = [one.get("additionalProperties", False) for one in self.mappings]
                found = [{} if one is True else one for one in others if one is not False]
        if not found:
            return None
        return Place(
            tuple(option for one in found for option in _options(one)),
            found[0].get("default"),
            found[0].get("description", ""),
        )

    def walk(self, parts: Iterable[str | int]) -> Place | None:
        """The place that many steps below this one; None where there is none."""
        place: Place | None = self
        for part in parts:
            place = place and place.step(part)
        return place

    @property
    def expected(self) -> str:
        """The allowed values, in words that follow `must be`."""
        if self.names:
            alone = any(one.get("type") == "string" for one in self.options)
            return f"a mapping whose name is {either(self.names)}" + (", or a name alone" if alone else "")
        return " or ".join(_sentence(one) for one in self.options)

    @property
    def meaning(self) -> str:
        """`; ` and the first sentence on a quantity, whose allowed values say nothing of it; "" for others."""
        is_quantity = {one.get("type") for one in self.options} <= {"integer", "number"} and bool(self.options)
        sentence = self.description.partition(". ")[0].rstrip(".")
        return f"; {sentence[0].lower()}{sentence[1:]}" if is_quantity and sentence else ""

    def homes(self, key: str, prefix: str = "") -> Iterator[str]:
        """The dotted keys, here or deeper, whose last part is `key`."""
        for one in self.keys:
            if one == key:
                yield prefix + one
            if place := self.step(one):
                yield from place.homes(key, f"{prefix}{one}.")


def _schema() -> dict[str, Any]:
    return _schema_with(choices.loaded())


@functools.lru_cache(maxsize=4)
def _schema_with(loaded: object) -> dict[str, Any]:
    """The schema, with the keys of users' classes that are imported by now."""
    return json_schema()


def root() -> Place:
    """The place of the scenario itself."""
    return Place((_schema(),))


def _options(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "$ref" in schema:
        yield from _options(_schema()["$defs"][schema["$ref"].rpartition("/")[2]])
    elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
        for one in alternatives:
            yield from _options(one)
    elif schema.get("type") != "null" and schema.get("pattern") != USERS_NAME:
        yield schema


def _sentence(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"const": value}:
            return repr(value)
        case {"enum": values}:
            return either(values)
        case {"type": "integer" | "number" as kind}:
            return ("a whole number" if kind == "integer" else "a number") + _range(schema)
        case {"type": "string"}:
            most = f", at most {schema['maxLength']} characters" if "maxLength" in schema else ""
            return ("a text that is not empty" if schema.get("minLength") else "a text") + most
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "array", "items": items}:
            least = " with at least one item" if schema.get("minItems") else ""
            inner = Place(tuple(_options(items))).expected
            return f"a list{least}" + (f", each {inner}" if inner != "anything" else "")
        case {"type": "object", "properties": properties, "additionalProperties": True}:
            return f"a mapping with {', '.join(properties)} and any other keys"
        case {"type": "object", "properties": properties}:
            return "a mapping with keys among " + ", ".join(properties)
        case {"type": "object"}:
            return "a mapping"
        case _:
            return "anything"


def _is_of_anybody(schema: Mapping[str, Any]) -> bool:
    return "pattern" in schema.get("properties", {}).get("name", {})


def _plain(bound: float) -> float:
    return int(bound) if bound == int(bound) else bound


def _range(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    # Bounds beyond MOST, which come from the machine, are left out here.
    stated = {key: schema[key] for key in words if key in schema and abs(schema[key]) < MOST}
    bounds = [f"{words[key]} {_plain(bound)}" for key, bound in stated.items()]
    return ", " + " and ".join(bounds) if bounds else ""
