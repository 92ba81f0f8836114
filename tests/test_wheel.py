"""What `pip install .` would install: the package, whole, and nothing beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import asgd_lab

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def test_the_wheel_holds_the_package_its_presets_and_its_type_marker(tmp_path: Path) -> None:
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "asgd_lab").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    for name in [*package, "pyproject.toml", "README.md", "LICENSE"]:
        target = tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=tmp_path / "tree", capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        info = {Path(name).name: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    assert held == package
    assert "asgd_lab/py.typed" in held
    assert any(name.startswith("asgd_lab/hardware/presets/") for name in held)
    assert info["entry_points.txt"].split() == b"[console_scripts] asgd-lab = asgd_lab.__main__:main".split()
    metadata = message_from_bytes(info["METADATA"])
    assert metadata["Version"] == asgd_lab.__version__
    assert "tensorboard" in metadata.get_all("Provides-Extra", [])
    assert "LICENSE" in info
