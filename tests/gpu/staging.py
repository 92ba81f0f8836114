"""Section 4: copies between device and host: pageable, pinned, registered memory, and the product's own, by size.

Processes copy at once, each its own vectors, as workers do.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.gpu.place import Failed, Place, rounded, spread

MB = 1_000_000
Copier = subprocess.Popen[str]


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """A row a size and number of processes: GB/s of one process by way, and of all together by the product's."""
    counts = place.size((1, 2, 4), (1, 2))
    with contextlib.ExitStack() as stack:
        crew = [stack.enter_context(_copier()) for _ in range(counts[-1])]
        for copier in crew:
            _read(copier)
        for megabytes, repeats in place.size(((1, 50), (16, 20), (244, 7), (1000, 5)), ((1, 5), (16, 3))):
            for count in counts if megabytes < 1000 else counts[:-1]:  # which would take tens of gigabytes
                told = _at_once(crew[:count], megabytes * MB, repeats)
                yield {
                    "what": f"{megabytes} MB, {count} at once, GB/s of one",
                    **{way: spread(_rates(told, way, megabytes)) for way in told[0]["seconds"]},
                    "all_together": {
                        way: rounded(sum(spread(_rates([one], way, megabytes))["median"] for one in told))
                        for way in told[0]["seconds"]
                        if way.startswith("product")
                    },
                    "staging": told[0]["staging"],
                }
        if not place.gpu:
            yield {"what": "pinned and registered memory", "why": "no GPU"}


def _rates(told: Sequence[dict[str, Any]], way: str, megabytes: int) -> list[float]:
    return [megabytes / 1e3 / seconds for one in told for seconds in one["seconds"][way]]


def _at_once(crew: Sequence[Copier], size_bytes: int, repeats: int) -> list[dict[str, Any]]:
    size_bytes -= size_bytes % 4
    for copier in crew:
        assert copier.stdin is not None
        copier.stdin.write(json.dumps({"bytes": size_bytes, "repeats": repeats}) + "\n")
        copier.stdin.flush()
    return [json.loads(_read(copier)) for copier in crew]


def _read(copier: Copier) -> str:
    assert copier.stdout is not None
    if not (line := copier.stdout.readline()):
        raise Failed(f"a process that copies has ended with {copier.wait()}")
    return line


@contextlib.contextmanager
def _copier() -> Iterator[Copier]:
    command = [sys.executable, "-m", "tests.gpu.copier"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as copier:
        try:
            yield copier
        finally:
            copier.kill()
