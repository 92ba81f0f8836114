"""`make gpu` without a GPU: its sections run with a CPU in its place, and none of them can stop the others."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import asgd_lab
from tests.gpu import rehearsal, wheels
from tests.gpu.place import STAND_IN
from tests.gpu.runner import run
from tests.gpu.sections import SECTIONS, Section, batches, due_s
from tests.whole import sample

FAKES = {
    "passes": "def measure(place, folder):\n    yield {'what': 'one', 'value': float('nan')}\n    yield {'what': 2}\n",
    "fails": "def measure(place, folder):\n    yield {'what': 'one'}\n    1 / 0\n",
    "dies": "import os\ndef measure(place, folder):\n    yield {'what': 'one'}\n    os.kill(os.getpid(), 9)\n",
    "hangs": """\
import os, subprocess, time
def measure(place, folder):
    child = subprocess.Popen(["sleep", "600"], process_group=0)
    yield {"what": "child", "pid": child.pid}
    time.sleep(600)
""",
}
STATUS = {"passes": "passed", "fails": "failed", "dies": "died", "hangs": "timed out"}


def ran(sections: list[Section], out: Path, path: str = "", **environment: str) -> dict[str, Any]:
    """The verdict, and by name what gpu.json has of the sections."""
    path = os.pathsep.join(filter(None, [str(wheels.ROOT), path, *sys.path]))
    verdict = run(sections, out, {**os.environ, "PYTHONPATH": path, STAND_IN: "1", **environment}, {"facts": "kept"}, 2)
    kept = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    assert kept["facts"] == "kept"
    assert kept["sections"][-1] == verdict
    return {each["name"]: each for each in kept["sections"]}


def test_a_section_that_fails_hangs_or_dies_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = []
    for name, source in FAKES.items():
        sections.append(
            Section(len(sections), name, module := f"fake_{name}", 60.0, alone=name == "passes", runs=False)
        )
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    others = [section for section in sections if section.name != "hangs"]  # which would have the time that they left
    found = ran(others, tmp_path / "out", str(tmp_path))
    hanging = ran([sections[-1]._replace(limit_s=6.0)], tmp_path / "hanging", str(tmp_path))
    found["hangs"] = hanging["hangs"]
    assert {name: found[name]["status"] for name in FAKES} == STATUS
    on = found["passes"]["on"]
    assert found["passes"]["rows"] == [{"what": "one", "value": None, "on": on}, {"what": 2, "on": on}]
    assert [found[name]["rows"] for name in ("fails", "dies")] == [[{"what": "one", "on": on}]] * 2
    assert "ZeroDivisionError" in found["fails"]["why"]
    assert "SIGKILL" in found["dies"]["why"]
    assert found["verdict"]["sections"] == {"passed": ["passes"], "failed": ["fails"], "died": ["dies"]}
    assert (found["verdict"]["status"], hanging["verdict"]["status"]) == ("failed", "failed")
    for row in found["hangs"]["rows"]:  # none where the time was over before it had begun
        assert not psutil.pid_exists(row["pid"]) or psutil.Process(row["pid"]).status() == psutil.STATUS_ZOMBIE
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(each["name"] for each in printed) == sorted([*FAKES, "verdict", "verdict"])


def test_the_limits_of_all_sections_are_less_than_five_minutes() -> None:
    assert sum(due_s(batch, jobs=4) for batch in batches(SECTIONS)) <= 292
    assert sorted(section.number for section in SECTIONS) == list(range(1, 12)), "the verdict is number 12"
    assert all((wheels.ROOT / (section.module.replace(".", "/") + ".py")).exists() for section in SECTIONS)


@pytest.mark.parametrize("section", sample(list(SECTIONS), 1, seed=3), ids=lambda section: section.name)
def test_a_section_runs_with_a_cpu_in_the_place_of_a_gpu_and_says_so(section: Section, tmp_path: Path) -> None:
    generous = section._replace(limit_s=120.0)
    found = ran([generous], tmp_path / "out", CUDA_VISIBLE_DEVICES="")[section.name]
    assert found["status"] == "passed", found
    assert found["rows"]
    assert all("in the place of a GPU" in row["on"] for row in found["rows"])


# ---------------------------------------------------------------- carried wheels


def imported() -> Iterator[str]:
    """The libraries that the package, the sections and what these use of the tests import, by their top-level names."""
    tree = wheels.ROOT / "tests"
    paths = [*Path(asgd_lab.__file__).parent.rglob("*.py"), *(tree / "gpu").glob("*.py"), tree / "conftest.py"]
    paths += [tree / "backends" / "chaos.py", tree / "backends" / "ticking.py", tree / "benchmarks" / "sync.py"]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module is not None:
                names = [node.module]
            yield from (name.partition(".")[0] for name in names)


def test_what_is_imported_is_carried_or_is_on_the_machine() -> None:
    known = importlib.metadata.packages_distributions()
    ours = {
        "asgd_lab",
        "tests",
        "tensorboardX",
        "tokenizers",
        "wandb",
        "mlflow",
        "_typeshed",
    } | sys.stdlib_module_names  # extras; no module
    libraries = {canonicalize_name(known[name][0]) for name in imported() if name not in ours}
    libraries |= {"ruamel-yaml"} if "ruamel" in set(imported()) else set()
    assert libraries - {"asgd-lab"} <= {*wheels.NAMES, *rehearsal.HAS}
    assert {"simpy", "pydantic", "torch"} <= libraries, "the reader of imports sees them"


def test_what_a_carried_library_needs_is_carried_or_is_on_the_machine() -> None:
    for name in wheels.NAMES:
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": "", "python_version": "3.12"}):
                assert canonicalize_name(needed.name) in {*wheels.NAMES, *rehearsal.HAS}, f"{name} needs {needed}"


def test_carried_libraries_are_pinned_as_everywhere() -> None:
    assert set(wheels.NAMES) <= wheels.pins().keys()
    for name in wheels.NAMES:
        assert importlib.metadata.version(name) == wheels.pins()[name]


def wheel(folder: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> None:
    lines = "".join(f"Requires-Dist: {each}\n" for each in requires)
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n{lines}")
        archive.writestr(f"{name.replace('-', '_')}.py", "")


@pytest.fixture
def carried(tmp_path: Path) -> dict[str, Path]:
    """Empty libraries under the names of the real ones."""
    for name in wheels.NAMES:
        if name not in ("pydantic", "rich"):
            wheel(tmp_path, name, "9.0")
    wheel(tmp_path, "pydantic", "9.0", "pydantic-core==9.0", "typing-extensions>=4.15; python_version >= '3.9'")
    wheel(tmp_path, "rich", "9.0", "pygments<9", "no-such-thing; extra == 'more'", tag="cp27-none-any")
    return wheels.found(tmp_path)


def test_only_what_is_missing_or_too_old_is_unpacked(carried: dict[str, Path], tmp_path: Path) -> None:
    everything = dict.fromkeys(wheels.NAMES, "98.0")
    assert wheels.lacking(everything, carried) == []
    without = {name: version for name, version in everything.items() if name != "pydantic"}
    assert wheels.lacking(without, carried) == ["pydantic", "pydantic-core"], "its core must be of its version"
    old = without | {"typing-extensions": "4.1"}
    assert wheels.lacking(old, carried) == ["pydantic", "pydantic-core", "typing-extensions"]
    assert wheels.lacking(everything | {"simpy": "3.0"}, carried) == ["simpy"], "the project needs version 4"
    wheels.unpack(["simpy"], carried, tmp_path / "site")
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["simpy-9.0.dist-info", "simpy.py"]


def test_a_wheel_that_is_missing_or_of_another_python_is_named(carried: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(wheels.Lacking, match=r"simpy: missing here, and not in .wheels; run `make gpu-wheels` first"):
        wheels.lacking({}, {name: path for name, path in carried.items() if name != "simpy"})
    with pytest.raises(wheels.Lacking, match=r"rich: missing here, and rich-9.0-cp27-none-any.whl is for another"):
        wheels.unpack(["rich"], carried, tmp_path / "site")
