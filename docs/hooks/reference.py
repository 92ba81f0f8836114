"""The reference pages: keys from the JSON Schema, commands from the command line, names from the registries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer
from markdown.extensions.toc import slugify

from asgd_lab.catalogue import CATALOGUE
from asgd_lab.scenario import json_schema, presets
from tests.cli.harness import app

_titles: dict[str, str] = {}  # of the sections, by the schema's definitions
MODELS = "`asgd-lab list models` adds all models of torchvision."
LONG = 60  # characters of a default, above which it is left to its own section
LISTS = ("algorithms", "rules", "codecs", "tasks", "backends")


def keys() -> str:
    """Every key of a scenario: its type, its default and its meaning."""
    schema = json_schema()
    _titles.update({reference: title for title, reference, _ in _parts(schema)})
    lines = ["# Keys of a scenario", "", "Written from the JSON Schema that `asgd-lab schema` prints.", ""]
    for title, _, part in _parts(schema):
        lines += [f"## {title}", ""] + ([_line(part["description"]), ""] if "description" in part else [])
        if part.get("properties"):
            required = part.get("required", [])
            lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
            lines += [_row(name, each, name in required, schema) for name, each in part["properties"].items()]
            lines.append("")
    return "\n".join(lines)


def _parts(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The scenario, and each mapping below it with its dotted key, once: title, definition's name, definition."""
    seen: set[str] = set()

    def below(part: dict[str, Any], path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for name, each in part.get("properties", {}).items():
            for reference in _references(each):
                if reference in seen:
                    continue
                seen.add(reference)
                found = schema["$defs"][reference]
                choice = found.get("properties", {}).get("name", {}).get("const")
                key = f"{path}{name}"
                if "properties" in found:
                    yield f"{key}: {choice}" if choice else key, reference, found
                yield from below(found, f"{key}.")

    yield "The file", "", schema
    yield from below(schema, "")


def _references(value: Any) -> Iterator[str]:
    """The names of the definitions that a value of the schema refers to."""
    if isinstance(value, dict):
        if isinstance(found := value.get("$ref"), str):
            yield found.rpartition("/")[2]
        for key, each in value.items():
            if key not in ("examples", "default", "discriminator"):
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _row(name: str, key: dict[str, Any], required: bool, schema: dict[str, Any]) -> str:
    default = json.dumps(key["default"]) if "default" in key else ""
    default = "required" if required else "each its own" if len(default) > LONG else f"`{default}`" if default else ""
    meaning = _line(key.get("description", ""))
    return f"| `{name}` | {_cell(_kind(key, schema))} | {_cell(default)} | {_cell(meaning)} |"


def _kind(key: dict[str, Any], schema: dict[str, Any]) -> str:
    """The allowed values in a few words."""
    if "$ref" in key:
        reference = key["$ref"].rpartition("/")[2]
        if reference not in _titles:
            return _kind(schema["$defs"][reference], schema)
        title = _titles[reference]
        return f"[{title.rpartition(': ')[2]}](#{slugify(title, '-')})"
    if "const" in key:
        return f"`{json.dumps(key['const'])}`".replace('"', "")
    if "enum" in key:
        return ", ".join(f"`{each}`" for each in key["enum"])
    for several in ("anyOf", "oneOf"):
        if several in key:
            return " or ".join(dict.fromkeys(_kind(each, schema) for each in key[several]))
    kind = key.get("type", "any value")
    if kind == "array":
        return f"a list of: {_kind(key.get('items', {}), schema)}"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
    return names.get(kind, "a mapping") + _bounds(key)


def _bounds(key: dict[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {key[name]:,}" for name, sign in words.items() if name in key]
    return f" {', '.join(said)}" if said else ""


def commands() -> str:
    """Every command: its help, its arguments and its options."""
    lines = ["# Commands", "", "Written from the command line itself; `asgd-lab COMMAND -h` prints the same.", ""]
    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        usage = " ".join(["asgd-lab", name, *(_argument(each) for each in arguments)])
        lines += [f"## {name}", "", f"```text\n{usage}{' [OPTIONS]' if options else ''}\n```", ""]
        lines += [_escaped(command.help or ""), ""]
        rows = [(_argument(each), each.help) for each in arguments]
        rows += [(_option(each), each.help) for each in options]
        if rows:
            lines += ["| | |", "| --- | --- |"]
            lines += [f"| `{_cell(what)}` | {_cell(_line(help or ''))} |" for what, help in rows] + [""]
    return "\n".join(lines)


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    many = f"{name}..." if argument.nargs < 0 else name
    return many if argument.required else f"[{many}]"


def _option(option: Any) -> str:
    return ", ".join(option.opts) + ("" if option.is_flag else f" {option.metavar or option.name.upper()}")


def lists() -> str:
    """The names that a scenario can use, and the presets of hardware with each number and its source."""
    lines = ["# Names", "", f"Written from the registries, as `asgd-lab list` prints them. {MODELS}", ""]
    for title in LISTS:
        lines += [f"## {title.capitalize()}", "", "| name | meaning |", "| --- | --- |"]
        lines += [f"| `{_cell(name)}` | {_cell(_line(said))} |" for name, said in CATALOGUE[title]().items()] + [""]
    lines += [
        "## Presets of hardware",
        "",
        "Each number has a grade: vendor, measured, recalled, fitted or assumed.",
        "",
    ]
    for name in presets.names():
        lines += [f"### {name}", "", *_preset(name), ""]
    return "\n".join(lines)


def _preset(name: str) -> Iterator[str]:
    preset = presets.read(name)
    yield from (_line(preset.description), "")
    yield from ("| key | value | grade and source |", "| --- | --- | --- |")
    for key, value in presets.leaves(preset.hardware):
        yield f"| `{key}` | `{_cell(str(value))}` | {_cell(_line(preset.sources.get(key, '')))} |"


def _line(text: str) -> str:
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
