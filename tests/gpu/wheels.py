"""Libraries that are carried to a machine without a network: wheels for Python 3.12 on Linux, pinned as everywhere.

`python -m tests.gpu.wheels` downloads them into `.wheels`. A machine's own library is used where it has one that every
requirement allows. Nothing is imported here but the standard library and packaging.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from email import message_from_bytes
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".wheels"
MOST_BYTES = 64 * 2**20
NAMES = (
    *("simpy", "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions"),
    *("ruamel-yaml", "typer", "annotated-doc", "shellingham", "rich", "markdown-it-py", "mdurl", "pygments"),
    *("cloudpickle", "jinja2", "markupsafe"),
)
"""What the package imports, and needs for that, beside the libraries for numbers, tables and figures that come with a
machine for computing: torch, torchvision, numpy, scipy, pandas, pyarrow, pillow, psutil, matplotlib,
seaborn."""
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class Lacking(Exception):
    """A library is missing, and no wheel of it is carried."""


def pins() -> dict[str, str]:
    """The version of every library that constraints.txt names."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def download(folder: Path = FOLDER) -> int:
    """All of them, and nothing else, into the folder; their bytes together."""
    pinned = pins()
    folder.mkdir(exist_ok=True)
    wanted = {name: pinned[name] for name in NAMES}
    for name, path in found(folder).items():
        if str(parse_wheel_filename(path.name)[1]) != wanted.get(name):
            path.unlink()
    missing = [f"{name}=={version}" for name, version in wanted.items() if name not in found(folder)]
    if missing:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
            *("--implementation", "cp", "--python-version", "3.12", "--dest", str(folder)),
            *(word for platform in _PLATFORMS for word in ("--platform", platform)),
        ]
        subprocess.run([*command, *missing], check=True)
    size_bytes = sum(path.stat().st_size for path in found(folder).values())
    if size_bytes > MOST_BYTES:
        raise SystemExit(f"the carried wheels have {size_bytes:,} bytes; at most {MOST_BYTES:,} can be carried")
    return size_bytes


def found(folder: Path = FOLDER) -> dict[str, Path]:
    """The wheels in the folder, by the library's name."""
    return {canonicalize_name(path.name.split("-")[0]): path for path in sorted(folder.glob("*.whl"))}


def lacking(installed: Mapping[str, str], wheels: Mapping[str, Path]) -> list[str]:
    """What must be unpacked beside libraries of these versions: missing, or older than what is used allows."""
    chosen: set[str] = set()
    while True:
        needed = [*_own(), *(each for name in sorted(chosen) for each in _requirements(wheels[name]))]
        needed += [Requirement(name) for name in NAMES]
        more = {canonicalize_name(each.name) for each in needed if not _has(each, installed)} - chosen
        more &= set(NAMES)
        if not more:
            return sorted(chosen)
        if without := sorted(more - wheels.keys()):
            raise Lacking(f"{', '.join(without)}: missing here, and not in {FOLDER.name}; run `make gpu-wheels` first")
        chosen |= more


def unpack(names: Iterable[str], wheels: Mapping[str, Path], target: Path) -> None:
    """These wheels' contents, to be found by a module search path with `target` in it."""
    for name in names:
        if parse_wheel_filename(wheels[name].name)[3].isdisjoint(sys_tags()):
            raise Lacking(f"{name}: missing here, and {wheels[name].name} is for another Python than {sys.executable}")
        with zipfile.ZipFile(wheels[name]) as archive:
            archive.extractall(target)


def installed() -> dict[str, str]:
    """The version of every library that this Python finds."""
    return {canonicalize_name(each.name): each.version for each in importlib.metadata.distributions() if each.name}


def _own() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(each) for each in project["dependencies"]]


def _requirements(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    stated = [Requirement(line) for line in lines]
    return [each for each in stated if each.marker is None or each.marker.evaluate({"extra": ""})]


def _has(requirement: Requirement, installed: Mapping[str, str]) -> bool:
    version = installed.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


if __name__ == "__main__":
    print(f"{FOLDER.name}: {len(NAMES)} wheels, {download() / 2**20:.1f} MiB of {MOST_BYTES / 2**20:.0f} at most")
