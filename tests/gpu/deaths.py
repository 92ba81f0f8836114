"""Section 8: workers and the server killed, Ctrl-C and resume: no update is lost or in twice, and no memory stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from asgd_lab.record import atomic_files, checkpoints
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Document
from tests.backends.chaos import acknowledged, survive
from tests.backends.ticking import TASK, ticked
from tests.gpu.place import Failed, Place
from tests.gpu.watching import used

ASGD = {"name": "asgd", "n_sync": 3}
LEFT_BYTES = 64 * 2**20  # of GPU memory, by which what is used may vary by itself
PATIENCE_S = 30.0


def measure(place: Place, folder: Path) -> Iterator[dict[str, Any]]:
    """Two rows, lost and double minibatches in each; it fails unless they are none."""
    wrong = []
    torch.zeros(1, device=place.device)  # what this process takes of the GPU by itself is taken before
    for what, trial in (("killed", _killed), ("interrupted and resumed", _interrupted)):
        before = used(place)
        row = trial(place, folder / what.partition(" ")[0])
        row["gpu_memory_left_bytes"] = _left(place, before[1]) if before is not None else "no GPU"
        yield {"what": what, **row}
        if row["lost"] or row["twice"]:
            wrong.append(f"{what}: {row['lost']} lost, {row['twice']} twice")
        if before is not None and row["gpu_memory_left_bytes"] > LEFT_BYTES:
            wrong.append(f"{what}: {row['gpu_memory_left_bytes']:,} bytes of the GPU's memory are still used")
        if row.get("difference"):
            wrong.append(f"{what}: repeated, it differs: {row['difference']}")
    if wrong:
        raise Failed("; ".join(wrong))


def _killed(place: Place, out: Path) -> dict[str, Any]:
    """SIGKILL and SIGSTOP at random moments, from a seed, to workers and the server; and the record is repeated."""
    every_s, seconds = place.size((0.8, 6.0), (0.4, 4.0))
    found = survive(out, 1, ASGD, workers=2, seconds=seconds, every_s=every_s, device="cuda")
    return {
        "done": dict(found.done), "updates": found.summary["updates"], "minibatches": found.summary["minibatches"],
        "lost": found.lost, "twice": found.twice, "seconds": round(found.seconds, 1),
        "same_bits": found.verdict.difference is None, "difference": found.verdict.difference,
    }  # fmt: skip


def _interrupted(place: Place, out: Path) -> dict[str, Any]:
    """Ctrl-C to the program when there is a checkpoint; then it goes on."""
    stated = {
        "name": "interrupted", "seed": 2, "task": TASK, "algorithm": ASGD | {"rule": ["add"]}, "workers": 2,
        "budget": {"seconds": 2.0}, "backend": place.backend(checkpoint={"every_updates": 20}),
        "faults": {"on_death": "restart"},
    }  # fmt: skip
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(stated), encoding="utf-8")
    program = _start("run", path, "--out", out, "--trust")
    until = time.monotonic() + PATIENCE_S
    while not checkpoints.all_of(out) and program.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    if not checkpoints.all_of(out):
        program.kill()
        raise Failed(f"there is no checkpoint after {PATIENCE_S:g} s")
    os.killpg(program.pid, signal.SIGINT)
    interrupted = _status(program)
    resumed = _status(_start("run", path, "--out", out, "--trust", "--resume"))
    if (interrupted, resumed) != (130, 0):
        raise Failed(f"Ctrl-C ended with {interrupted} instead of 130, and what went on with {resumed} instead of 0")
    scenario = Document.read(path).points()[0].scenario
    difference = final_params(out) - ticked(scenario.seed, acknowledged(scenario, out))
    summary = atomic_files.read_json(out / "summary.json")
    return {
        "updates": summary["updates"], "minibatches": summary["minibatches"], "statuses": [interrupted, resumed],
        "lost": int(-difference[difference < 0].sum()), "twice": int(difference[difference > 0].sum()),
    }  # fmt: skip


def _start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """In a process group of its own, as a terminal would start it, but of this session, with which it is killed."""
    return subprocess.Popen([sys.executable, "-m", "asgd_lab", *map(str, arguments)], process_group=0)


def _status(program: subprocess.Popen[bytes]) -> int:
    try:
        return program.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        program.kill()
        raise Failed(f"{' '.join(map(str, program.args[2:5]))} did not end in {PATIENCE_S:g} s") from None


def _left(place: Place, before_bytes: int) -> int:
    """What more is used than before; the driver gives a dead process's memory back a moment later."""
    until = time.monotonic() + 3.0
    if place.gpu:
        torch.cuda.empty_cache()
    while True:
        now = used(place)
        assert now is not None
        left_bytes = now[1] - before_bytes
        if left_bytes <= LEFT_BYTES or time.monotonic() > until:
            return max(0, left_bytes)
        time.sleep(0.1)
