"""Section 2: the tests of test_cuda.py: how many passed, failed, and were skipped."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from asgd_lab.record.machine import usable_cores
from tests.gpu.place import Failed, Place

TESTS = Path(__file__).with_name("test_cuda.py")
MOST_PROCESSES = 5
LONGEST = 300  # characters of a message that is kept


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """Their counts, and a row for each that did not pass. Warnings of other versions of libraries are no errors."""
    report = folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", f"--junitxml={report}"]
    if importlib.util.find_spec("xdist") is not None and (cores := usable_cores()) > 4:
        command += ["-n", str(min(MOST_PROCESSES, cores // 3))]  # most of the time CUDA starts in new processes
    status = subprocess.run([*command, str(TESTS)], check=False).returncode
    if not report.exists():
        raise Failed(f"pytest ended with {status} and left no report")
    cases = list(ElementTree.parse(report).iter("testcase"))
    found: dict[str, list[ElementTree.Element]] = {"passed": [], "failed": [], "skipped": []}
    for case in cases:
        is_bad = case.find("failure") is not None or case.find("error") is not None
        found["failed" if is_bad else "skipped" if case.find("skipped") is not None else "passed"].append(case)
    yield {"what": "tests", **{word: len(those) for word, those in found.items()}}
    for word in ("failed", "skipped"):
        for case in found[word]:
            why = next(each for each in case if each.tag in ("failure", "error", "skipped")).get("message", "")
            yield {"what": case.get("name"), "was": word, "why": why[:LONGEST]}
    if found["failed"] or not found["passed"]:
        raise Failed(f"{len(found['failed'])} of {len(cases)} tests failed")
