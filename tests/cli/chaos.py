"""Random scenarios, each run by the command line and hit once at a random moment; then resumed, and replayed.

`python -m tests.cli.chaos 60 --seed 1` prints a line a case and a table of what came of which blow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from asgd_lab import interrupts
from asgd_lab.record.run import read_summary

from .harness import asgd_lab, assert_nobody_is_left, members

PATIENCE_S = 240.0
TASK = {"name": "quadratic", "curvature": [1.0, 0.5, 0.1, 0.02], "noise": 0.1,
        "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}}  # fmt: skip
ALGORITHMS: list[dict[str, Any]] = [
    {"name": "asgd"},
    {"name": "asgd", "rule": [{"name": "momentum", "beta": 0.5}]},
    {"name": "asgd", "push": "gradient", "rule": [{"name": "adadelta"}]},
    {"name": "ssp", "bound": 1},
    {"name": "sync_sgd"},
    {"name": "downpour", "depth": 2},
]
ENDS = [(signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)]
KILL, STOP = (signal.SIGKILL,), (signal.SIGSTOP, signal.SIGCONT)
TO_MAIN = [*(("main", end) for end in ENDS), ("main", KILL), ("main", STOP)]
TO_OTHERS = [(who, blow) for who in ("worker", "server", "fork server") for blow in (KILL, STOP)]


@dataclass(frozen=True)
class Case:
    """A scenario, whom what signals hit, and when: seconds from the program's start, or from that of the record."""

    scenario: dict[str, Any]
    victim: str
    signals: tuple[signal.Signals, ...]
    apart_s: float
    is_running: bool
    after_s: float

    @property
    def blow(self) -> str:
        """In words."""
        return f"{self.victim}: {'+'.join(each.name for each in self.signals)}"


@dataclass(frozen=True)
class Found:
    """What came of a case; `faults` are what must not be."""

    outcome: str
    then: str
    faults: list[str]


def case(seed: int, number: int) -> Case:
    """Case `number` of a seed: all blows in turn, everything else at random."""
    draw = random.Random(f"{seed}/{number}")
    victim, signals = [*TO_MAIN, *TO_OTHERS][number % 12]
    is_real = victim != "main" or draw.random() < 0.6
    algorithm = dict(draw.choice(ALGORITHMS))
    if draw.random() < 0.3 and algorithm["name"] in ("asgd", "downpour"):
        algorithm |= {"n_fetch": draw.randint(1, 6), "n_push": draw.randint(1, 6)}
    else:
        algorithm |= {"n_sync": draw.randint(1, 6)}
    backend: dict[str, Any] = {"name": "sim"}
    if is_real:
        backend = {"name": "process", "device": draw.choice(["cpu", "emulated"])}
        if draw.random() < 0.6:
            backend["checkpoint"] = draw.choice([{"every_s": 0.3}, {"every_updates": draw.randint(5, 100)}])
    scenario: dict[str, Any] = {
        "name": "chaos",
        "seed": number,
        "task": TASK,
        "algorithm": algorithm,
        "workers": draw.randint(1, 4),
        "budget": {"seconds": 4.0} if is_real else {"minibatches": 30000},
        "backend": backend,
    }
    if backend.get("device") != "cpu":
        scenario["hardware"] = {"compute": {"step_s": 0.002}}
    if is_real and draw.random() < 0.5:
        scenario["faults"] = {"on_death": "restart", "silent_s": draw.choice([0.5, 5.0])}
    is_running = draw.random() < 0.6
    after_s = draw.uniform(0.0, 5.0)
    return Case(scenario, victim, signals, draw.uniform(0.05, 1.5), is_running, after_s)


def hit(program: subprocess.Popen[str], it: Case, out: Path) -> bool:
    """Do it; False if the victim, or the program, had ended before."""
    until = time.monotonic() + PATIENCE_S
    while it.is_running and not (out / "manifest.json").exists() and program.poll() is None:
        assert time.monotonic() < until, "the run never begins"
        time.sleep(0.02)
    time.sleep(it.after_s)
    while (victim := _victim(program, it.victim)) is None and program.poll() is None:
        assert time.monotonic() < until, f"there is never a {it.victim}"
        time.sleep(0.02)
    if victim is None or program.poll() is not None:
        return False
    try:
        for number, each in enumerate(it.signals):
            time.sleep(it.apart_s if number else 0.0)
            victim.send_signal(each)
    except psutil.NoSuchProcess:
        return number > 0
    return True


def _victim(program: subprocess.Popen[str], who: str) -> psutil.Process | None:
    for process in members(program.pid):
        with contextlib.suppress(psutil.Error, OSError):
            if who == "main":
                if process.pid == program.pid:
                    return process
            elif who == "fork server":
                if process.ppid() == program.pid and "forkserver" in " ".join(process.cmdline()):
                    return process
            elif re.search(rf"/{who}(-0)?\.log$", os.readlink(f"/proc/{process.pid}/fd/2")):
                return process
    return None


def _outcome(status: int, err: str, out: Path, faults: list[str]) -> str:
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    has_begun = (out / "manifest.json").exists()
    if "Traceback" in err and has_begun:
        faults.append(f"a traceback: {lines[-1]}")
    match status:
        case 0 | 130:
            recorded = read_summary(out)["status"] if (out / "summary.json").exists() else "nothing"
            if recorded != ("interrupted" if status else "done") and (has_begun or not status):
                faults.append(f"status {status}, and the record says {recorded}")
            return "interrupted" if status else "done"
        case 1:
            if len(lines) != 1:
                faults.append(f"{len(lines)} lines: {err}")
            return "failed, one line"
        case _ if status == -signal.SIGKILL or (status < 0 and not has_begun):
            return "killed"
    faults.append(f"status {status}: {err}")
    return f"status {status}"


def _hear() -> None:
    """A program in the background, or under nohup, would have the program ignore what it is to be hit with."""
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def survive(it: Case, folder: Path) -> Found:
    """Run the case in an empty folder, and all that follows it."""
    faults: list[str] = []
    temporary, out, said = folder / "temporary", folder / "out", folder / "said.txt"
    temporary.mkdir()
    (folder / "case.yaml").write_text(yaml.safe_dump(it.scenario))
    environment = {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch"), "PYTHONUNBUFFERED": "1"}
    shared = set(os.listdir("/dev/shm"))
    with said.open("w") as screen:
        program = subprocess.Popen(
            [sys.executable, "-m", "asgd_lab", "run", "case.yaml", "--out", "out"],
            stdout=screen, stderr=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, **environment},
            start_new_session=True, preexec_fn=_hear,
        )  # fmt: skip
    try:
        was_hit = hit(program, it, out)
        try:
            _, err = program.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            for process in members(program.pid):
                process.kill()
            program.communicate()
            return Found("hangs", "", ["it hangs"])
    finally:
        program.kill()
    outcome = _outcome(program.returncode, err, out, faults) if was_hit else "ended before"
    assert_nobody_is_left(program.pid)
    for left in {*os.listdir(temporary)} | {*os.listdir("/dev/shm")} - shared:
        faults.append(f"{left} is left behind")
    then = "replayed"
    if outcome not in ("done", "ended before"):
        then = "resumed" if list(out.glob("checkpoints/[0-9]*")) else "made anew"
        again = asgd_lab("run", folder / "case.yaml", "--out", out, *(["--resume"] if out.exists() else []))
        if again.status:
            return Found(outcome, then, [*faults, f"then status {again.status}: {again.err}"])
    replayed = asgd_lab("replay", out)
    if replayed.status or not re.search("the same bits|bit for bit", " ".join(replayed.out.split())):
        faults.append(f"replay: status {replayed.status}: {replayed.out}{replayed.err}")
    return Found(outcome, then, faults)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    counts: Counter[tuple[str, str, str]] = Counter()
    bad = 0
    for number in range(asked.first, asked.first + asked.count):
        it = case(asked.seed, number)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = survive(it, Path(folder))
            except AssertionError as error:
                found = Found("?", "", [str(error)])
        counts[it.blow, found.outcome, found.then] += 1
        bad += bool(found.faults)
        what = f"{it.scenario['backend']['name']} {it.scenario['algorithm']['name']} of {it.scenario['workers']}"
        print(f"{number}: {what}; {it.blow} -> {found.outcome}, {found.then}", *found.faults, sep="; ", flush=True)
    print()
    for (blow, outcome, then), count in sorted(counts.items()):
        print(f"{count:4}  {blow:28}  {outcome:18}  {then}")
    print(f"{asked.count} cases, {bad} with a fault")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
