"""New scenario files: one with comments to start from, or a copy of a carried one. Nothing is overwritten."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from asgd_lab import arguments
from asgd_lab.errors import ScenarioError, meant, refusal, shown
from asgd_lab.scenario import Name, carried
from asgd_lab.scenario.writing import dump

STARTER = Path(__file__).parent / "scenario" / "starter.yaml"


def new(file: arguments.AnyPath, source: str | None = None) -> list[Path]:
    """Write a scenario with comments to a new YAML file; it is named like its file. Return the written paths.

    With `source` it is a copy of the carried scenario of that name, with the Python files that the scenario names. A
    `ScenarioError` if one of the files exists, or the file's name cannot be a scenario's.
    """
    with arguments.named_as_in_python():
        return written(arguments.path("file", file), source)


def written(path: Path, source: str | None) -> list[Path]:
    """As `new`; errors name options of the command line."""
    check_ending(path)
    try:
        TypeAdapter(Name).validate_python(path.stem)
    except ValidationError as error:
        raise ScenarioError(f"{path}: its name becomes the scenario's, which {error.errors()[0]['msg']}") from None
    found = STARTER if source is None else carried.path_of(source) if isinstance(source, str) else None
    if found is None:
        hint = meant(source, carried.names())
        said = shown(source)
        raise ScenarioError(f"--from: no carried scenario has the name {said}{hint}; see `asgd-lab list scenarios`")
    files = {path: _renamed(found.read_text(encoding="utf-8"), path, source)}
    files |= {path.parent / each.name: each.read_text(encoding="utf-8") for each in _code(found)}
    write(files)
    return list(files)


def check_ending(file: Path) -> None:
    """A `ScenarioError` for the path of a scenario with another ending than YAML's."""
    if file.suffix not in (".yaml", ".yml"):
        raise ScenarioError(f"{file}: must end in .yaml")


def check_absent(file: Path) -> None:
    """A `ScenarioError` if anything is there."""
    if os.path.lexists(file):
        raise ScenarioError(f"{file}: exists, and is not overwritten; choose another name")


def _renamed(text: str, file: Path, source: str | None) -> str:
    """The text with the new name, in the commands of its comments too."""
    said = shlex.quote(str(file))
    if source is None:
        text = text.replace("FILE", said)
    else:
        text = re.sub(rf"(asgd-lab (?:run|compare) ){re.escape(source)}(?=\s|$)", lambda found: found[1] + said, text)
    name = dump({"name": file.stem}).strip()
    return re.sub(r"^name: .*$", lambda _: name, text, count=1, flags=re.MULTILINE)


def _code(scenario: Path) -> list[Path]:
    """The Python files beside a scenario whose modules it names."""
    text = scenario.read_text(encoding="utf-8")
    return [path for path in sorted(scenario.parent.glob("*.py")) if re.search(rf"\b{path.stem}:\w", text)]


def write(files: Mapping[Path, str]) -> None:
    """Write the texts to new files; a `ScenarioError` if one of them exists, and then none is written."""
    for file in files:
        check_absent(file)
    for file, text in files.items():
        try:
            with file.open("x", encoding="utf-8") as new:
                new.write(text)
        except OSError as error:
            raise ScenarioError(f"cannot be written: {refusal(error)}") from None
