"""Named machines: a preset's values apply where a scenario has none; the files are in asgd_lab/hardware/presets."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import WithJsonSchema

import asgd_lab.scenario.keys as keys
from asgd_lab.configuration import refuse
from asgd_lab.errors import among
from asgd_lab.scenario.source import Source

FOLDER = Path(__file__).parent.parent / "hardware" / "presets"
GRADES = {
    "vendor": "from the maker's or the operator's description",
    "measured": "somebody measured it and says so",
    "recalled": "from memory, not confirmed",
    "fitted": "chosen so that a run agrees with a publication",
    "assumed": "a choice",
}
"""The first words of a source, the grades of its number, with their meanings."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One file: the machine's description, its values as in a scenario's `hardware`, and the source of each."""

    name: str
    description: str
    hardware: Mapping[str, Any]
    sources: Mapping[str, str]  # by dotted key below hardware


def names() -> list[str]:
    """All presets, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


Name = Annotated[str, WithJsonSchema({"type": "string", "enum": names()})]


@functools.cache
def read(name: str) -> Preset:
    """The preset of a name in `names`."""
    path = FOLDER / f"{name}.yaml"
    data = Source(where=lambda line: f"{path}:{line}").parse(path.read_text(encoding="utf-8")).data
    return Preset(name, data["description"], data["hardware"], data["sources"])


def leaves(value: Any, path: keys.Path = ()) -> Iterator[tuple[str, Any]]:
    """Every value inside, except mappings and lists, by its dotted key."""
    if isinstance(value, Mapping | list):
        for key, inside in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from leaves(inside, (*path, key))
    else:
        yield keys.dotted(path), value


def filled(data: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario's hardware merged over its presets; later presets override earlier ones."""
    known = names()
    merged: dict[str, Any] = {}
    for key, name in _chosen(data):
        if name not in known:
            refuse([(key, f"there is no preset {name!r}{among(name, known)}")])
        merged = _over(merged, read(name).hardware)
    return _over(merged, data)


def giver(hardware: Any, path: keys.Path) -> str | None:
    """The preset that gives a key below `hardware`; None if no preset does, or if the scenario itself does."""
    if not isinstance(hardware, Mapping) or hardware.get("preset") is None or _has(hardware, path):
        return None
    givers = [name for _, name in _chosen(hardware) if name in names() and _has(read(name).hardware, path)]
    return givers[-1] if givers else None


def _chosen(hardware: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The named presets, each with its key in the scenario."""
    chosen = hardware["preset"]
    if isinstance(chosen, list):
        return [(f"preset.{index}", name) for index, name in enumerate(chosen)]
    return [("preset", chosen)]


def _over(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _over(base[key], value) if isinstance(value, Mapping) and isinstance(base.get(key), Mapping) else value
        for key, value in given.items()
    }
    return {**base, **both}


def _has(data: Any, path: keys.Path) -> bool:
    for part in path:
        held = data if isinstance(data, Mapping) else dict(enumerate(data)) if isinstance(data, list) else {}
        if part not in held:
            return False
        data = held[part]
    return True
