"""Runs sections one after the other, each in a process of its own that is killed with all it started if it takes long.

Whatever becomes of one, the others run. Nothing is imported here that a broken installation could lack.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gpu.sections import Section, batches, due_s

Result = dict[str, Any]
KILLING_S = 5.0
LINES = 30  # of a failed section's log that are kept


def has_gpu(environment: Mapping[str, str]) -> bool:
    """Whether torch finds a GPU and none is to be stood in for; asked in a process, in which CUDA's state stays."""
    if environment.get("ASGD_LAB_GPUS_STAND_IN"):
        return False
    command = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        said = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=60, check=False)
        return said.stdout.strip().endswith("True")
    return False


def run(
    sections: Sequence[Section], out: Path, environment: Mapping[str, str], facts: Mapping[str, Any],
    jobs: int = 1, patience: float = 1.0,
) -> Result:  # fmt: skip
    """Run them all, `jobs` at a time where they may, within `patience` times their limits; the verdict.

    A section may take its limit and what those before it have left of theirs. A line of JSON is printed as each is
    over. Everything is kept in `out`/gpu.json, from the first one on.
    """
    began, due = time.monotonic(), 0.0
    results: list[Result] = []
    kept = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
    for batch in batches(sections):
        due += patience * due_s(batch, jobs)
        with ThreadPoolExecutor(min(jobs, len(batch))) as pool:
            going = {pool.submit(_run, each, began + due, environment): each for each in batch}
            for future in as_completed(going):
                section = going[future]
                results.append({"section": section.number, "name": section.name, **future.result()})
                print(json.dumps(results[-1]), flush=True)
                _keep(out, {**kept, "sections": results})
    last = verdict(results, time.monotonic() - began)
    print(json.dumps(last), flush=True)
    _keep(out, {**kept, "sections": [*results, last]})
    return last


def verdict(results: Sequence[Result], seconds: float) -> Result:
    """The last section: which of the others passed, and the seconds that each took."""
    by_status: dict[str, list[str]] = {}
    for each in results:
        by_status.setdefault(each["status"], []).append(each["name"])
    status = "passed" if set(by_status) == {"passed"} else "failed"
    return {
        "section": 12, "name": "verdict", "status": status,
        "seconds": round(seconds, 1), "sections": by_status,
        "on": sorted({each["on"] for each in results if each["on"]}),
        "why": {each["name"]: each["why"] for each in results if "why" in each},
        "took_s": {each["name"]: each["seconds"] for each in results},
    }  # fmt: skip


def _run(section: Section, until: float, environment: Mapping[str, str]) -> Result:
    began = time.monotonic()
    limit_s = max(0.0, until - began)
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.gpu.one", section.module, name, *["runs"] * section.runs],
                env={**environment, "TMPDIR": name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status: int | None = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _kill_session(process.pid)
                process.wait()
        return _result(folder, status, limit_s, time.monotonic() - began)


def _result(folder: Path, status: int | None, limit_s: float, seconds: float) -> Result:
    end, rows = folder / "end.json", folder / "rows.jsonl"
    told = json.loads(end.read_text(encoding="utf-8")) if end.exists() else {}
    why: str | None = told.get("why")
    if status is None:
        word, why = "timed out", f"killed after {limit_s:.0f} s"
    elif not told:
        word, why = "died", f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
    else:
        word = "passed" if why is None else "failed"
    result: Result = {"status": word, "seconds": round(seconds, 1), "on": told.get("on")}
    if why is not None:
        result["why"] = why
        result["log"] = (folder / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True) if rows.exists() else []
    result["rows"] = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be cut off
    return result


def _kill_session(session: int) -> None:
    """Everything that was started in it; who starts others meanwhile is found at the next look.

    Who waits for a driver that does not answer cannot die: the others do not wait for that.
    """
    until = time.monotonic() + KILLING_S
    while (members := list(_members(session))) and time.monotonic() < until:
        for process in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _members(session: int) -> Iterator[int]:
    """The living processes of a session, as the system lists them."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, its_session = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:4]
                if int(its_session) == session and state not in "ZX":
                    yield int(entry)


def _keep(out: Path, everything: Result) -> None:
    """The file is whole at any moment."""
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "gpu.json.new"
    unfinished.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, out / "gpu.json")
