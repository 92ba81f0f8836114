"""Faults at random moments, from a seed, in a real run; and the proof that it came through them.

Processes are killed, stopped and continued from outside, as an unlucky operator would.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm, build_budget
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.replay import Verdict, repeat
from asgd_lab.backends.run import execute
from asgd_lab.protocol.messages import Ack, Message, PushRequest
from asgd_lab.protocol.server import Server
from asgd_lab.record import tables
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.backends.ticking import TASK, ticked


def members(kind: str) -> list[psutil.Process]:
    """The processes of a run of ours: children of the fork server, recognised by their open log."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{process.pid}/fd/2").endswith(f"{kind}.log"):
                found.append(process)
    return found


@dataclass
class Chaos:
    """A watch that does something to somebody every `every_s` seconds, once the first versions are there."""

    seed: int
    workers: int
    every_s: float
    seconds: float  # of the run
    done: Counter[str] = field(default_factory=Counter)
    _next: float = 0.0
    _stopped: list[tuple[float, psutil.Process]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        for until, process in list(self._stopped):
            if until <= now:
                self._stopped.remove((until, process))
                self._signal(process, signal.SIGCONT, "resumed")
        over = progress.seconds > self.seconds - 2  # nobody is stopped who would not be continued
        if progress.version < 3 or now < self._next or over:
            return
        self._next = now + self.every_s * self._random.uniform(0.5, 1.5)
        kind = self._random.choice(["server", *(f"worker-{number}" for number in range(self.workers))])
        for process in members(kind):
            who = kind.partition("-")[0]
            if self._random.random() < 0.6:
                self._signal(process, signal.SIGKILL, f"{who} killed")
            elif self._signal(process, signal.SIGSTOP, f"{who} stopped"):
                self._stopped.append((now + self._random.choice([0.1, 0.5, 1.5]), process))

    def _signal(self, process: psutil.Process, which: signal.Signals, what: str) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(which)
            self.done[what] += 1
            return True
        return False


@dataclass
class Outcome:
    """What came of a run under fire: `counts` are the parameters, `expected` what the acknowledged pushes add up to."""

    summary: dict[str, Any]
    done: Counter[str]
    versions: list[int]
    lost: int
    twice: int
    verdict: Verdict
    seconds: float


def survive(
    out: Path, seed: int, algorithm: dict[str, Any], workers: int, seconds: float, every_s: float = 0.3,
    device: str = "cpu",
) -> Outcome:  # fmt: skip
    """A run of so many seconds under fire; what it has made, and whether it repeats."""
    backend = {"device": "cuda", "deterministic": True} if device == "cuda" else {}
    scenario = Scenario.model_validate(
        {
            "name": "chaos",
            "seed": seed,
            "task": TASK,
            "algorithm": algorithm | {"rule": ["add"]},
            "workers": workers,
            "budget": {"seconds": seconds},
            "backend": {"name": "process", "digest_every_updates": 100} | backend,
            "faults": {"on_death": "restart", "silent_s": 0.7},
        }
    )
    chaos = Chaos(seed, workers, every_s, seconds)
    began = time.monotonic()
    summary = execute(scenario, out, chaos)
    took = time.monotonic() - began
    effects = tables.read(out, "effects")
    versions = effects[(effects["kind"] == "apply") & (effects["version"] > 0)]["version"].unique()
    expected = ticked(seed, acknowledged(scenario, out))
    counts = final_params(out)
    difference = counts - expected
    return Outcome(
        summary, chaos.done, sorted(versions.tolist()), int(-difference[difference < 0].sum()),
        int(difference[difference > 0].sum()), repeat(scenario, out), took,
    )  # fmt: skip


def acknowledged(scenario: Scenario, out: Path) -> list[tuple[int, int]]:
    """Every minibatch (worker, step) of a push that went into a version, as the record has it."""
    algorithm = build_algorithm(scenario)
    server = Server(algorithm.gate, algorithm.n_fetch, build_budget(scenario))
    first: dict[tuple[int, int], int] = {}
    found: list[tuple[int, int]] = []
    for row in event_log.read(out / event_log.FILE):
        message = row.message
        if not isinstance(message, Message):
            continue
        if isinstance(message, PushRequest):
            first[message.worker, message.number] = server.taken(message.worker)
        for grant in server.hear(message, row.begun_ns):
            if isinstance(grant, Ack) and grant.version > 0:
                begin = first[grant.worker, grant.number]
                found += [(grant.worker, step) for step in range(begin, begin + grant.steps)]
    return found
