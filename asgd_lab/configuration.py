"""The base of all parts of a scenario: frozen, closed, strictly typed; nothing here knows a task or a file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

Count = Annotated[int, Field(ge=1)]
MOST = 1e30  # of a number in a computation: products with other numbers still fit 32-bit floats
Positive = Annotated[float, Field(gt=0, le=MOST)]
NonNegative = Annotated[float, Field(ge=0, le=MOST)]
Size = Annotated[int, Field(ge=0, le=10**15)]  # bytes: a petabyte
MOST_S = 1e9  # 31 years: a few of them fit a clock of 64-bit nanoseconds
Seconds = Annotated[float, Field(gt=0, le=MOST_S)]
Delay = Annotated[float, Field(ge=0, le=MOST_S)]
Rate = Annotated[float, Field(ge=1)]  # bytes a second
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Folder:
    """Marks a key whose text is the path of a folder, which depends on the current directory unless it is absolute."""


class Part(BaseModel):
    """A mapping of the scenario: no key it does not know, no text for a number, no truth value for a count, no nan."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        field_title_generator=lambda name, _: name,
    )


def not_finite(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every nan, infinity and number beyond `MOST` inside a free-form value, by its dotted key."""
    if isinstance(value, float) and not math.isfinite(value):
        yield key, "must be a finite number; got " + ("nan" if math.isnan(value) else "an infinity")
    elif isinstance(value, int | float) and abs(value) > MOST:
        yield key, f"must be between {-MOST:g} and {MOST:g}; got {value:.3g}"
    elif isinstance(value, int) and abs(value) >= 2**63:
        yield key, f"is a whole number of more than 64 bits; write it as {value:.3e}"
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in items:
        yield from not_finite(item, f"{key}.{part}" if key else str(part))


def refuse(contradictions: Iterable[tuple[str, str]]) -> None:
    """Raise an error if there are any contradictions: each a dotted key below the part (or ""), and a sentence."""
    found = tuple(contradictions)
    if found:
        text = "; ".join(f"{key}: {sentence}" if key else sentence for key, sentence in found)
        raise PydanticCustomError("contradiction", "{text}", {"text": text, "found": found})


def widened(value: object) -> object:
    """The mapping that a bare name stands for; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def names_in(schema: Mapping[str, Any]) -> list[str]:
    """The values that the JSON Schema of a name allows."""
    return [
        name
        for one in schema.get("anyOf", [schema])
        for name in one.get("enum", [one["const"]] if "const" in one else [])
    ]


def patterns_in(schemas: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The patterns that the JSON Schemas of names allow besides."""
    found = [one["pattern"] for schema in schemas for one in schema.get("anyOf", [schema]) if "pattern" in one]
    return [{"pattern": pattern} for pattern in dict.fromkeys(found)]


@dataclass(frozen=True, slots=True)
class BareName:
    """Marks a mapping chosen by `name` for which the name alone may be written."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Widen before anything else looks at the value."""
        return core_schema.no_info_before_validator_function(widened, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Offer, beside the mappings, the names that need no other key."""
        full = handler(schema)
        mappings = [handler.resolve_ref_schema(one) for one in full.get("oneOf", [full])]
        alone = [one["properties"]["name"] for one in mappings if one["required"] == ["name"]]
        names: dict[str, Any] = {"enum": sorted(name for one in alone for name in names_in(one))}
        bare = [{"type": "string", **text, "description": "The name alone."} for text in (names, *patterns_in(alone))]
        return {"anyOf": [*bare, full]}
