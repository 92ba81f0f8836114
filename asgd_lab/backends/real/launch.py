"""The parent of a real run: lays out the transport, supervises its processes, and joins their records."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from time import monotonic_ns as now_ns
from typing import Any

from asgd_lab import tasks, trust
from asgd_lab.backends import devices, room
from asgd_lab.backends.build import build_algorithm, build_task, check_task, end_facts, initial_parameters
from asgd_lab.backends.failing import evaluation_failed
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.backends.real import snapshots
from asgd_lab.backends.real.checkpoints import rewind
from asgd_lab.backends.real.gather import gather
from asgd_lab.backends.real.limits import check
from asgd_lab.backends.real.live_rows import LiveRows
from asgd_lab.backends.real.orphans import SharedHold
from asgd_lab.backends.real.plan import Plan
from asgd_lab.backends.real.preload import preload
from asgd_lab.backends.real.progress_words import Words
from asgd_lab.backends.real.supervisor import Supervisor
from asgd_lab.backends.real.transports.shared_memory import SharedMemory
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.hardware.costs import check_memory
from asgd_lab.record import atomic_files, checkpoints, removal
from asgd_lab.record.machine_load import LoadMeter
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Task


def run(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Run the scenario with real processes on this node.

    RunFailed names the process that died, the reason and its log; data recorded until then are in `record`.
    """
    began_ns = now_ns()
    check(scenario)
    resumed = checkpoints.newest(record.path, to_resume=True)
    preload()
    data = tasks.load(scenario.task)
    task = build_task(scenario, data, checked=True)
    room.check(scenario, task.size, task.device_bytes)  # before any computation with vectors of its size
    check_task(scenario, task)
    initial = initial_parameters(scenario, task).cpu()
    devices.release()  # the memory of the task's trial
    algorithm = build_algorithm(scenario)
    if scenario.backend.device == "emulated":
        check_memory(scenario.hardware, task.size_bytes)
    record.begin()
    parts, logs = record.path / "parts", record.path / "logs"
    for folder in (parts, logs):
        folder.mkdir(exist_ok=True)
    plan = Plan(
        scenario, task.size, task.size_bytes,
        SharedMemory(
            scenario.workers, task.size, depth=algorithm.depth, shared=algorithm.shared,
            states=algorithm.rule.all_states(scenario.workers),
            scalars=max(1, algorithm.parts) * algorithm.rule.all_scalars(scenario.workers),
            copies=algorithm.gate.keeps,
            tensors=data | task.start(),
        ),
        record.path, resumed,
        0 if resumed is None else checkpoints.state_of(resumed).elapsed_ns, parts, logs, tuple(sys.path),
        trust.is_trusted(), SharedHold(record.path), devices.stand_in(),
    )  # fmt: skip
    if resumed is not None:
        rewind(plan, resumed)
    elif task.size:
        plan.transport.slot(0, writable=True).copy_(initial)
    if record.hearer is not None:
        record.hearer.follow(LiveRows(plan, record.recording.keep_round))
    supervisor, meter = Supervisor(plan), LoadMeter()
    interrupted = False
    try:
        with supervisor:
            try:
                supervisor.watch(watch)
            except KeyboardInterrupt:
                interrupted = True
                supervisor.stop()
    except KeyboardInterrupt:  # a second Ctrl-C: do not wait for processes, but save their records
        interrupted = True
    load = meter.read()
    if record.hearer is not None:
        record.hearer.last()
    try:
        outcome = _join(plan, record, interrupted, supervisor, began_ns)
    except ScenarioError as error:  # the run had begun: keep its records
        raise RunFailed(f"what the processes recorded cannot be read: {error}") from error
    outcome.facts["machine_load"] = load._asdict()
    try:
        with outcome.evaluating(record):
            if task.size:
                _evaluate(scenario, task, parts, record, outcome)
    finally:
        plan.close()
        checkpoints.abandon(record.path)
        if outcome.status == "done" or scenario.backend.checkpoint is None:  # else it may be resumed
            removal.clear(record.path, "parts")
    return outcome


def _join(plan: Plan, record: RunDirectory, interrupted: bool, supervisor: Supervisor, began_ns: int) -> Outcome:
    """Put the processes' rows into the run's tables, and count."""
    scenario, final = plan.scenario, plan.parts / "final.npz"
    statistics = Statistics(scenario.workers)
    params, end_ns = None, None
    if final.exists():
        stored = atomic_files.read_arrays(final)
        params, end_ns = stored["params"], int(stored["end_ns"])
    server, end_ns = gather(plan, record, statistics, end_ns)
    progress = plan.transport.words
    started_ns = int(progress.server[Words.START_NS])
    overruns, steps = int(progress.worker[:, Words.OVERRUNS].sum()), int(progress.worker[:, Words.STEPS].sum())
    facts: dict[str, Any] = {}
    if started_ns:
        # The clock of a resumed run starts at the time that had elapsed before.
        facts["startup_s"] = (started_ns + plan.elapsed_ns - began_ns) * 1e-9
        facts["started_unix_s"] = time.time() - (now_ns() - started_ns) * 1e-9
    if scenario.backend.device == "emulated":
        facts["emulated"] = True
        facts["overruns"] = {"minibatches": overruns, "share": overruns / steps if steps else 0.0}
        facts["lateness"] = lateness(progress, end_ns)
    facts |= devices.facts(scenario)
    if scenario.backend.device == "cuda":
        registered, buffered = (int(progress.worker[:, word].sum()) for word in (Words.REGISTERED, Words.BUFFERED))
        facts["gpus"]["shared_vectors"] = {"registered": registered, "through_a_buffer": buffered}
    if server.wasted:
        facts["wasted_minibatches"] = server.wasted
    if scenario.faults is not None:
        facts["faults"] = asdict(supervisor.losses)
    failure = supervisor.failure or server.failure
    if not (failure or interrupted):
        facts |= end_facts(scenario, server, "seconds" if server.closed else None)
    return Outcome(
        statistics=statistics,
        makespan_ns=end_ns,
        updates=server.version,
        params=params if plan.size else None,
        final={},
        facts=facts,
        status="failed" if failure else "interrupted" if interrupted else "done",
        failure=failure,
    )


def lateness(progress: Words, makespan_ns: int) -> dict[str, float | None]:
    """Lateness of an emulated run's minibatches, services and links: mean time over mean stated time, less 1.

    None if no time was stated. `judged` decides whether the run is a valid measurement of the stated hardware: the
    largest of the lateness of minibatches and of services, and of the links' excess as a share of the workers' time. A
    short link is late by a wake-up, which matters only as far as workers spend their time on it.
    """
    worker, server = progress.worker.sum(axis=0), progress.server
    took = {
        "minibatches": (int(worker[Words.STEPPED_NS]), int(worker[Words.STEPS_STATED_NS])),
        "services": (int(server[Words.SERVED_NS]), int(server[Words.SERVED_STATED_NS])),
        "ways": (int(worker[Words.WAYS_NS]), int(worker[Words.WAYS_STATED_NS])),
    }
    late = {name: actual / stated - 1.0 if stated else None for name, (actual, stated) in took.items()}
    on_ways_ns = took["ways"][0] - took["ways"][1]
    shares = (late["minibatches"], late["services"], on_ways_ns / max(1, len(progress.worker) * makespan_ns))
    return {**late, "judged": max(share for share in shares if share is not None)}


def _evaluate(scenario: Scenario, task: Task, parts: Path, record: RunDirectory, outcome: Outcome) -> None:
    """Evaluate the processes' snapshots, and the final parameters."""
    device = devices.home(scenario)
    try:
        for snapshot in snapshots.read(parts):
            of_replica = snapshot.owner != "server"
            try:
                found = task.evaluate(snapshot.params.to(device), snapshot.buffers, of_replica=of_replica)
            except Exception as error:
                raise evaluation_failed(error) from error
            for split, metric, value in found:
                record.evals.add(
                    (snapshot.time_ns, snapshot.version, snapshot.minibatches, snapshot.owner, split, metric, value)
                )
        buffers = snapshots.buffers_of_first(parts)
    except ScenarioError as error:
        raise RunFailed(f"what the processes recorded cannot be read: {error}") from error
    outcome.evaluate(task, record, buffers, device)
