"""The parent of a process run: starts server and workers from a preloaded fork server, watches them, joins their rows.

The fork server imports torch once and runs no torch operation, because a fork after a parallel one would hang in the
child. Children run this package's modules, never the user's main script, so a notebook needs no `__main__` guard.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import socket
import sys
import time
import types
from collections.abc import Iterator
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing

from asgd_lab import tasks
from asgd_lab.backends.build import build_task, initial_parameters
from asgd_lab.backends.outcome import Outcome, Progress, Watch
from asgd_lab.backends.process import channel, server, snapshots, worker
from asgd_lab.backends.process.board import Board
from asgd_lab.backends.process.clock import now_ns
from asgd_lab.backends.process.memory import SharedTensors, Stack
from asgd_lab.backends.process.plan import EFFECT_ROW, KIND, MINIBATCH_ROW, PUSH_ROW, Plan
from asgd_lab.errors import ScenarioError
from asgd_lab.record.rowfile import read_rows
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task

POLL_S = 0.2
PATIENCE_S = 30.0  # for processes that were told to stop
MOST_WORKERS = 240  # the server takes a descriptor a worker, and a fork server passes 256 at most


def preload() -> None:
    """Start the fork server; the sooner, the more of its imports run beside the caller's own."""
    # torch.optim imports torch._dynamo with its first optimizer, which takes seconds: once is enough.
    forkserver.set_forkserver_preload(["torch._dynamo", worker.__name__, server.__name__])
    forkserver.ensure_running()


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Run the scenario with real processes on this node.

    RunFailed says which process died, why, and where its log is; what was recorded until then is in `record`.
    """
    began_ns = now_ns()
    _check(scenario)
    preload()
    data = tasks.load(scenario.task)
    task = build_task(scenario, data)
    initial = initial_parameters(scenario, task)
    workers = scenario.workers
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
    failure: str | None = None
    interrupted = False
    with _crew(plan) as crew:
        try:
            failure = crew.watch(watch)
        except KeyboardInterrupt:
            interrupted = True
            crew.stop()
    outcome = _join(plan, record, interrupted, failure, began_ns)
    if task.size:
        _evaluate(task, parts, record, outcome)
    plan.close()
    shutil.rmtree(parts)
    return outcome


def _check(scenario: Scenario) -> None:
    """What this node cannot do is said before anything is started."""
    if scenario.workers > MOST_WORKERS:
        message = f"the process backend starts at most {MOST_WORKERS} workers; for {scenario.workers} use backend sim"
        raise ScenarioError.at("workers", message)
    if scenario.backend.device == "cuda" and not torch.cuda.is_available():
        raise ScenarioError.at("backend.device", "cuda needs a GPU and torch finds none here; use cpu or emulated")


class Crew:
    """The running processes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        context: Any = torch.multiprocessing.get_context("forkserver")
        pairs = [channel.pair() for _ in range(plan.scenario.workers)]
        self._line, servers_line = socket.socketpair()
        self.server: BaseProcess = context.Process(
            target=server.main, args=(plan, [a for a, _ in pairs], servers_line), name="server"
        )
        self.workers: list[BaseProcess] = [
            context.Process(target=worker.main, args=(plan, number, end), name=f"worker {number}")
            for number, (_, end) in enumerate(pairs)
        ]
        with _without_main():
            for process in self.processes:
                process.start()
        for socket_ in (servers_line, *(end for pair in pairs for end in pair)):
            socket_.close()

    @property
    def processes(self) -> list[BaseProcess]:
        """All of them, the server first."""
        return [self.server, *self.workers]

    def watch(self, watch: Watch | None) -> str | None:
        """Wait for the end of the run; what went wrong, if anything did."""
        alive = {process.sentinel: process for process in self.processes}
        while alive:
            for sentinel in connection.wait(list(alive), timeout=POLL_S if watch is not None else None):
                process = alive.pop(sentinel)  # type: ignore[arg-type]
                process.join()
                if process.exitcode:
                    self.stop()
                    return self._why(process)
            if watch is not None:
                watch(self._progress())
        return None

    def stop(self) -> None:
        """Ask for the end of the run, and wait for it as long as is reasonable; then end what is left."""
        with contextlib.suppress(OSError):
            self._line.send(b"s")
        until = time.monotonic() + PATIENCE_S
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        self.end()

    def end(self) -> None:
        """No process of this run is left when this returns."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()
        self._line.close()

    def _why(self, process: BaseProcess) -> str:
        log = self.plan.logs / f"{process.name.replace(' ', '-')}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        code = process.exitcode or 0
        if code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
        else:
            cause = f"failed: {next((line for line in reversed(lines) if line.strip()), f'exit status {code}')}"
        done = ""
        if process is not self.server:
            steps = self.plan.board.worker[int(process.name.split()[1]), Board.STEPS]
            done = f" after {steps} minibatches"
        return f"{process.name} {cause}{done}; its log is {log}"

    def _progress(self) -> Progress:
        board = self.plan.board
        start_ns = int(board.server[Board.START_NS])
        losses = board.loss[:, 0]
        return Progress(
            seconds=(now_ns() - start_ns) * 1e-9 if start_ns else 0.0,
            version=int(board.server[Board.VERSION]),
            minibatches=int(board.server[Board.MINIBATCHES]),
            staleness=int(board.server[Board.STALENESS]),
            loss=float(np.mean(losses)) if start_ns else math.nan,
            workers=[Board.STATES[int(state)] for state in board.worker[:, Board.STATE]],
        )


@contextlib.contextmanager
def _crew(plan: Plan) -> Iterator[Crew]:
    crew = Crew(plan)
    try:
        yield crew
    finally:
        crew.end()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module while children start, or each would import the user's main script again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _join(plan: Plan, record: RunDirectory, interrupted: bool, failure: str | None, began_ns: int) -> Outcome:
    """Put the processes' rows into the run's tables, and count."""
    scenario, parts = plan.scenario, plan.parts
    keep = record.recording.keep_round
    statistics = Statistics(scenario.workers)
    effects = sorted(_rows(parts, "*.effects", EFFECT_ROW), key=lambda row: (row[4], row[0]))
    for number, _, kind, start_ns, end_ns, *_ in effects:
        if kind == KIND["train"]:
            statistics.worker_busy(number, end_ns - start_ns)
        elif number < 0:
            statistics.server_busy(end_ns - start_ns)
    for version, staleness, steps in _rows(parts, "*.pushes", PUSH_ROW):
        if version < 0:
            statistics.dropped(steps)
        else:
            statistics.applied(staleness, steps)
    record.effects.extend(row for row in effects if keep(row[1]))
    minibatches = _rows(parts, "*.minibatches", MINIBATCH_ROW)
    record.minibatches.extend(sorted(minibatches, key=lambda row: (row[2], row[0])))
    final, end_ns = parts / "final.npz", max((row[4] for row in effects), default=0)
    params = None
    if final.exists():
        with np.load(final) as stored:
            params, end_ns = stored["params"], int(stored["end_ns"])
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
