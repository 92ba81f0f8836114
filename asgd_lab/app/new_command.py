"""The command `new`: a scenario with comments to start from. Nothing that exists is overwritten."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from asgd_lab.errors import ScenarioError, meant, refusal
from asgd_lab.scenario import Name, carried
from asgd_lab.scenario.writing import dump

STARTER = Path(__file__).parents[1] / "scenario" / "starter.yaml"


def write(file: Path, source: str | None = None) -> list[Path]:
    """Write a scenario that is named like its file: the starter, or a copy of the carried scenario `source`.

    The Python files that the source names are copied beside it. Returns the written paths; ScenarioError if one of
    them exists or the name cannot be a scenario's.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise ScenarioError(f"{file}: must end in .yaml")
    try:
        TypeAdapter(Name).validate_python(file.stem)
    except ValidationError as error:
        raise ScenarioError(f"{file}: its name becomes the scenario's, which {error.errors()[0]['msg']}") from None
    found = STARTER if source is None else carried.path_of(source)
    if found is None:
        hint = meant(source, carried.names())
        raise ScenarioError(f"--from: no carried scenario has the name {source!r}{hint}; see `asgd-lab list scenarios`")
    written = {file: _renamed(found.read_text(encoding="utf-8"), file, source)}
    written |= {file.parent / path.name: path.read_text(encoding="utf-8") for path in _code(found)}
    _write(written)
    return list(written)


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


def _write(files: Mapping[Path, str]) -> None:
    for file in files:
        if os.path.lexists(file):
            raise ScenarioError(f"{file}: exists, and is not overwritten; choose another name")
    for file, text in files.items():
        try:
            with file.open("x", encoding="utf-8") as new:
                new.write(text)
        except OSError as error:
            raise ScenarioError(f"cannot be written: {refusal(error)}") from None
