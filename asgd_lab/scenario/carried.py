"""The scenarios that come with the package, a question each: found by name, wherever the command runs.

They lie in `scenarios` at the top of the source tree; a wheel has that folder inside the package. A file of the user
precedes a carried scenario of the same name, since the user sees that file; a folder does not, which is no scenario.
"""

from __future__ import annotations

import os
from pathlib import Path

from asgd_lab.errors import meant

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "scenarios", _PACKAGE.parent / "scenarios")  # of a wheel; of a source tree


def folder() -> Path | None:
    """The folder of the carried scenarios; None where the package was copied without them."""
    return next((place for place in _PLACES if (place / "quickstart.yaml").is_file()), None)


def names() -> list[str]:
    """Their names: of a file its name without .yaml, with its folder before it; those without a folder come first."""
    found = folder()
    if found is None:
        return []
    paths = (path.relative_to(found).with_suffix("").as_posix() for path in found.rglob("*.yaml"))
    return sorted(paths, key=lambda name: ("/" in name, name))


def path_of(name: str) -> Path | None:
    """The file of the carried scenario of that name; None if there is none."""
    return found / f"{name}.yaml" if (found := folder()) is not None and name in names() else None


def described() -> dict[str, str]:
    """The question that each scenario answers, by its name: the first line of its file."""
    return {name: _question(path) for name in names() if (path := path_of(name)) is not None}


def located(given: str) -> str:
    """The path of a scenario given as a path or as a name: the file if it exists, else the carried scenario."""
    carried = path_of(given)
    return given if carried is None or _is_file(given) else str(carried)


def shadowed(given: str) -> list[str]:
    """A warning where a file of the user has the name of a carried scenario."""
    both = _is_file(given) and path_of(given) is not None
    return [f"{given}: is a file here, and the name of a carried scenario too; the file is used"] if both else []


def hint(given: str) -> str:
    """The end of a message about a scenario that was not found: the name that was meant, or where names are listed."""
    return meant(given, names()) or ", or a name that `asgd-lab list scenarios` prints"


def _is_file(given: str) -> bool:
    try:
        return os.path.exists(given) and not os.path.isdir(given)
    except ValueError:  # such as a NUL in the name
        return False


def _question(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
