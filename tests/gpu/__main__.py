"""`python3 -m tests.gpu [SECTION ...]`: run all sections or the named ones, without an installation of the package.

Libraries that this Python lacks are unpacked from `.wheels`. What was measured is in gpu.json, in the folder that the
variable OUT names, else in runs/gpu.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.gpu import wheels
from tests.gpu.runner import has_gpu, run
from tests.gpu.sections import SECTIONS

STAND_IN = "ASGD_LAB_GPUS_STAND_IN"
CORES = 4  # for each section that runs beside others


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 if every section that could run has passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    names = [section.name for section in SECTIONS]
    parser.add_argument("names", nargs="*", metavar="SECTION", help=f"of {', '.join(names)}; all, if none is named")
    parser.add_argument("--patience", type=float, default=1.0, metavar="TIMES", help="for a slow machine: more time")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(names):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [section for section in SECTIONS if not given.names or section.name in given.names]
    out = Path(os.environ.get("OUT") or wheels.ROOT / "runs" / "gpu")
    os.chdir(wheels.ROOT)
    with tempfile.TemporaryDirectory(prefix="gpu-site-", ignore_cleanup_errors=True) as site:
        carried = wheels.found()
        try:
            unpacked = wheels.lacking(wheels.installed(), carried)
            wheels.unpack(unpacked, carried, Path(site))
        except wheels.Lacking as error:
            print(error, file=sys.stderr)
            return 2
        jobs = max(1, len(os.sched_getaffinity(0)) // CORES)
        path = os.pathsep.join(filter(None, [str(wheels.ROOT), site, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each section imports what was just unpacked
        if not has_gpu(environment):
            environment[STAND_IN] = "1"  # before any process of a section starts, which would not hear of it later
        facts = {"python": platform.python_version(), "commit": _commit(), "unpacked": unpacked}
        return int(run(chosen, out, environment, facts, jobs, given.patience)["status"] != "passed")


def _commit() -> str | None:
    """The project's, with a plus where files differ from it; None where git does not know."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
