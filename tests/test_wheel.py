"""What a user installs: the wheel holds the package, its scenarios and nothing else, and works far from the tree."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import asgd_lab
from asgd_lab.scenario import carried

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"
TOP = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")


def files(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if "__pycache__" not in name}


def build(what: str, tree: Path, out: Path) -> Path:
    out.mkdir()
    command = [sys.executable, "-c", BUILD.format(what), str(out)]
    built = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as an index would have it, of a copy of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("asgd_lab", "scenarios"):
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in TOP:
        shutil.copy(ROOT / name, folder / "tree" / name)
    with tarfile.open(build("sdist", folder / "tree", folder / "sdist")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (tree,) = (folder / "unpacked").iterdir()
    return build("wheel", tree, folder / "wheel")


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, installed by pip, beside the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    # The libraries may have a distribution of this name, which is the tree that is being tested.
    options = ["--no-index", "--no-deps", "--force-reinstall", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "--python", folder, "install", *options, wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_the_package_and_its_scenarios_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        info = {Path(name).name: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    package = {f"asgd_lab/{name}" for name in files(ROOT / "asgd_lab")}
    scenarios = {f"asgd_lab/scenarios/{name}" for name in files(ROOT / "scenarios")}
    assert held == package | scenarios
    assert {"asgd_lab/py.typed", "asgd_lab/scenarios/quickstart.yaml", "asgd_lab/scenarios/schema.json"} <= held
    assert any(name.startswith("asgd_lab/hardware/presets/") for name in held)
    assert info["entry_points.txt"].split() == b"[console_scripts] asgd-lab = asgd_lab.__main__:main".split()
    assert "LICENSE" in info


def test_its_metadata_are_those_of_the_project(metadata: Message) -> None:
    assert metadata["Version"] == asgd_lab.__version__
    assert "tensorboard" in metadata.get_all("Provides-Extra", [])
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert any("arxiv.org/abs/1312.6186" in url for url in metadata.get_all("Project-URL", []))


def test_what_it_requires_is_what_the_tests_run_with(metadata: Message) -> None:
    """Every pin of constraints.txt satisfies the metadata, and every requirement without an extra is installed here."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {name.casefold().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}
    for text in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.casefold()], prereleases=True), text
        if requirement.marker is None:
            assert requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True), text


def test_each_bound_is_the_lowest_version_that_was_tried(metadata: Message) -> None:
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    bounds = {each.name.casefold(): str(each.specifier) for each in required if each.marker is None}
    tried = {name: f">={version}" for name, _, version in (line.partition("==") for line in lines)}
    assert bounds == tried, "a requirement without a bound is '' here"


@pytest.mark.xdist_group("process")
def test_an_installed_program_works_far_from_the_tree(installed: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    python, program = str(installed / "bin" / "python"), str(installed / "bin" / "asgd-lab")
    assert run(python, "-c", "import asgd_lab; print(asgd_lab.__file__)").startswith(str(installed))
    assert run(program, "--version") == f"asgd-lab {asgd_lab.__version__}\n"
    listed = run(program, "list", "scenarios")
    assert all(f"\n{name}  " in listed for name in carried.names())
    short = ("--set", "budget={minibatches: 40}", "--set", "sweep=null", "--out")
    run(program, "run", "quickstart", *short, "inline", "--backend", "inline")
    run(program, "new", "mine.yaml", "--from", "bring-your-own")
    run(program, "run", "mine.yaml", "--trust", *short, "mine")  # with real processes
    assert {"inline/summary.json", "mine/summary.json", "bring_your_own.py"} <= files(tmp_path)
