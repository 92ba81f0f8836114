"""`python -m tests.gpu.rehearsal [SECTION ...]`: `make gpu` without a GPU, in an environment like a machine's with one.

That is Python 3.12 with torch 2.11 and the libraries that such a machine has; the others are carried to it. The
interpreter is what PYTHON312 names, python3.12, or one beside the folder of this Python. torch 2.11 is published for it
with CUDA alone: 2.6 GB to download, 7 GB in `.venv-gpu`. Where there is no such interpreter, or pip fails, this Python
and its torch do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.gpu import wheels

VENV = wheels.ROOT / ".venv-gpu"
OTHER = {"torch": "2.11.0", "torchvision": "0.26.0", "numpy": "2.5.2", "typer": "0.26.8"}
"""Versions as such a machine has them, one of them too old; of the rest constraints.txt's are taken."""
HAS = (
    *("torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "pillow", "psutil"),
    *("matplotlib", "seaborn", "typer", "rich", "packaging", "hypothesis", "pytest", "pytest-timeout", "pytest-xdist"),
)
"""What such a machine has of all that the package and the sections import."""

PATIENCE = "2"
"""Times a section's limit: a CPU is slow in a GPU's place."""


def interpreter() -> str | None:
    """A Python 3.12 that runs."""
    beside = sorted(Path(sys.base_prefix).parent.glob("*3.12*/bin/python3.12"))
    for candidate in (os.environ.get("PYTHON312"), "python3.12", *map(str, beside)):
        found = shutil.which(candidate) if candidate else None
        if found is not None and _says(found, "import sys; print(*sys.version_info[:2])") == "3 12":
            return found
    return None


def environment(python: str) -> Path:
    """The environment's interpreter; CalledProcessError where pip cannot make it."""
    pinned = wheels.pins() | OTHER
    wanted = [f"{name}=={pinned[name]}" for name in HAS]
    done, inside = VENV / "installed", VENV / "bin" / "python"
    if not done.exists() or done.read_text(encoding="utf-8").split() != wanted:
        subprocess.run([python, "-m", "venv", "--clear", str(VENV)], check=True)
        subprocess.run([str(inside), "-m", "pip", "install", "--quiet", *wanted], check=True)
        done.write_text("\n".join(wanted), encoding="utf-8")
    return inside


def main(arguments: Sequence[str]) -> int:
    """The exit status of the sections."""
    python = sys.executable
    if (found := interpreter()) is None:
        print("rehearsal: no Python 3.12 (PYTHON312 or python3.12) is here; this Python is used", flush=True)
    else:
        try:
            python = str(environment(found))
        except subprocess.CalledProcessError as error:
            print(f"rehearsal: {error}; this Python is used", flush=True)
    versions = _says(python, "import platform, torch; print(platform.python_version(), torch.__version__)").split()
    size_bytes = sum(path.stat().st_size for path in wheels.found().values())
    print(
        f"rehearsal: Python {versions[0]}, torch {versions[1]}, a CPU in place of a GPU; "
        f"{len(wheels.found())} carried wheels of {size_bytes / 2**20:.1f} MiB",
        flush=True,
    )
    out = str(wheels.ROOT / "runs" / "gpu-rehearsal")
    variables = {"OUT": out, "ASGD_LAB_GPUS_STAND_IN": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [python, "-m", "tests.gpu", "--patience", PATIENCE, *arguments]
    return subprocess.run(command, cwd=wheels.ROOT, env=os.environ | variables, check=False).returncode


def _says(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
