"""The parent of a process run: lays out the shared memory, runs the crew, and joins what it recorded."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.multiprocessing

from asgd_lab import tasks
from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.backends.process import snapshots
from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.clock import now_ns
from asgd_lab.backends.process.crew import Crew
from asgd_lab.backends.process.memory import SharedTensors, Stack
from asgd_lab.backends.process.plan import EFFECT_ROW, KIND, MINIBATCH_ROW, PUSH_ROW, Plan
from asgd_lab.backends.process.preload import preload
from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.costs import check_memory
from asgd_lab.record.rowfile import read_rows
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task

MOST_WORKERS = 240  # the server takes a descriptor a worker, and a fork server passes 256 at most


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Run the scenario with real processes on this node.

    RunFailed says which process died, why, and where its log is; what was recorded until then is in `record`.
    """
    began_ns = now_ns()
    check(scenario)
    preload()
    data = tasks.load(scenario.task)
    task = build_task(scenario, data)
    initial = initial_parameters(scenario, task)
    workers = scenario.workers
    _check_memory(workers, task.size)
    if scenario.backend.device == "emulated":
        check_memory(scenario.hardware, task.size_bytes)
    parts, logs = record.path / "parts", record.path / "logs"
    for folder in (parts, logs):
        folder.mkdir()
    plan = Plan(
        scenario, task.size, task.size_bytes,
        Stack("asgd-lab-versions", workers + 2, task.size),
        Stack("asgd-lab-mailboxes", workers, task.size),
        SharedTensors(data), Board(workers), parts, logs, tuple(sys.path),
    )  # fmt: skip
    if task.size:
        plan.slots.vector(0, writable=True).copy_(initial)
    crew = Crew(plan)
    interrupted = False
    try:
        with crew:
            try:
                crew.watch(watch)
            except KeyboardInterrupt:
                interrupted = True
                crew.stop()
    except KeyboardInterrupt:  # another one: nobody is waited for, but what they recorded is
        interrupted = True
    outcome = _join(plan, record, interrupted, crew.failure, began_ns)
    try:
        if task.size:
            _evaluate(task, parts, record, outcome)
    except KeyboardInterrupt:
        outcome.status = "interrupted"
    finally:
        plan.close()
        shutil.rmtree(parts)
    return outcome


def check(scenario: Scenario) -> None:
    """What this node cannot do is said before anything is started."""
    if scenario.workers > MOST_WORKERS:
        message = f"the process backend starts at most {MOST_WORKERS} workers; for {scenario.workers} use backend sim"
        raise ScenarioError.at("workers", message)
    if scenario.backend.device == "cuda" and not torch.cuda.is_available():
        raise ScenarioError.at("backend.device", "cuda needs a GPU and torch finds none here; use cpu or emulated")


def _check_memory(workers: int, size: int) -> None:
    """Too little memory for the vectors would end processes without a word."""
    needed, available = 4 * size * (3 * workers + 4), psutil.virtual_memory().available
    if needed > available:
        message = (
            f"{workers} workers with {size:,} parameters need {needed / 1e9:.1f} GB for their vectors, "
            f"and {available / 1e9:.1f} GB are free; use fewer"
        )
        raise ScenarioError.at("workers", message)


def _join(plan: Plan, record: RunDirectory, interrupted: bool, failure: str | None, began_ns: int) -> Outcome:
    """Put the processes' rows into the run's tables, and count."""
    scenario, parts = plan.scenario, plan.parts
    keep = record.recording.keep_round
    statistics = Statistics(scenario.workers)
    effects = sorted(_rows(parts, "*.effects", EFFECT_ROW), key=lambda row: (row[4], row[0]))
    for version, staleness, steps in _rows(parts, "*.pushes", PUSH_ROW):
        if version < 0:
            statistics.dropped(steps)
        else:
            statistics.applied(staleness, steps)
    record.effects.extend(row for row in effects if keep(row[1]))
    minibatches = _rows(parts, "*.minibatches", MINIBATCH_ROW)
    minibatches.sort(key=lambda row: (row[3], row[1]))
    record.minibatches.extend(row[1:] for row in minibatches if keep(row[0]))
    final, end_ns = parts / "final.npz", max((row[4] for row in effects), default=0)
    params = None
    if final.exists():
        with np.load(final) as stored:
            params, end_ns = stored["params"], int(stored["end_ns"])
    for number, _, kind, began, ended, *_ in effects:
        busy_ns = min(ended, end_ns) - min(began, end_ns)  # what comes after the run's end is none of its time
        if kind == KIND["train"]:
            statistics.worker_busy(number, busy_ns)
        elif number < 0:
            statistics.server_busy(busy_ns)
    board = plan.board
    started_ns = int(board.server[Board.START_NS])
    overruns, steps = int(board.worker[:, Board.OVERRUNS].sum()), int(board.worker[:, Board.STEPS].sum())
    facts: dict[str, Any] = {}
    if started_ns:
        facts["startup_s"] = (started_ns - began_ns) * 1e-9
        facts["started_unix_s"] = time.time() - (now_ns() - started_ns) * 1e-9
    if scenario.backend.device == "emulated":
        facts["emulated"] = True
        facts["overruns"] = {"minibatches": overruns, "share": overruns / steps if steps else 0.0}
    return Outcome(
        statistics=statistics,
        makespan_ns=end_ns,
        updates=int(board.server[Board.VERSION]),
        params=params if plan.size else None,
        final={},
        facts=facts,
        status="failed" if failure else "interrupted" if interrupted else "done",
        failure=failure,
    )


def _rows(parts: Path, pattern: str, format: str) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for path in sorted(parts.glob(pattern)):
        rows += read_rows(path, format).tolist()
    return rows


def _evaluate(task: Task, parts: Path, record: RunDirectory, outcome: Outcome) -> None:
    """Evaluate the snapshots that the processes left, and the final parameters."""
    for snapshot in snapshots.read(parts):
        for split, metric, value in task.evaluate(snapshot.params):
            record.evals.add(
                (snapshot.time_ns, snapshot.version, snapshot.minibatches, snapshot.owner, split, metric, value)
            )
    if outcome.params is not None:
        outcome.evaluate(task, record)
