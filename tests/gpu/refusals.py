"""Section 11: what cannot run is one line and a status: memory that no GPU has, and no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.gpu import networks
from tests.gpu.place import STAND_IN, Failed, Place

NO_GPU = {"CUDA_VISIBLE_DEVICES": "", STAND_IN: ""}


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """A row a case: the status and what was said; it fails where that is more than a line."""
    hungry = {
        "name": "classification", "dataset": "digits", "model": f"{networks.HERE}:Hungry", "optimizer": networks.SGD,
    }  # fmt: skip
    small = hungry | {"model": "mlp"}
    cases: list[tuple[str, dict[str, Any], dict[str, str], tuple[int, ...], str]] = [
        ("no GPU is visible", small, NO_GPU, (2,), "needs a GPU")
    ]
    if place.gpu:
        cases.append(("a network takes more memory than there is", hungry, {}, (1, 2), "memory"))
    else:
        yield {"what": "a network takes more memory than there is", "why": "no GPU"}
    wrong = []
    for number, (what, task, environment, statuses, words) in enumerate(cases):
        said = _program(task, place, environment, folder / str(number))
        lines = said.stderr.splitlines()
        yield {"what": what, "status": said.returncode, "said": lines[:3]}
        if said.returncode not in statuses or len(lines) != 1 or words not in said.stderr:
            wrong.append(f"{what}: status {said.returncode}, {len(lines)} lines")
    if wrong:
        raise Failed("; ".join(wrong))


def _program(
    task: dict[str, Any], place: Place, environment: dict[str, str], out: Path
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    stated = {
        "name": "refusals", "task": task, "algorithm": {"name": "asgd", "n_sync": 2}, "workers": 2,
        "budget": {"minibatches": 20}, "backend": place.backend(),
    }  # fmt: skip
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(stated), encoding="utf-8")
    command = [sys.executable, "-m", "asgd_lab", "run", str(path), "--out", str(out), "--trust"]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )
