"""Runs one scenario on its backend, and leaves a run directory however the run ends."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asgd_lab import choices, users_errors
from asgd_lab.backends.failing import logged
from asgd_lab.backends.inputs import inputs
from asgd_lab.backends.live_logs import end_log, live_log
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.backends.progress_file import ProgressFile
from asgd_lab.backends.resuming import how_far
from asgd_lab.backends.settings import settled
from asgd_lab.errors import RunFailed, ScenarioError, refusal
from asgd_lab.hardware import fit
from asgd_lab.loggers.live import LiveLog
from asgd_lab.record import checkpoints, removal, tables
from asgd_lab.record.directory_locks import made_and_locked
from asgd_lab.record.run import Beginning, RunDirectory, Status
from asgd_lab.record.summary import params_sha256
from asgd_lab.scenario import Document, Scenario, anchored, values_sha256, warnings
from asgd_lab.scenario.scaling import scaled
from asgd_lab.trust import named_in_code


@settled()
def execute(
    scenario: Scenario,
    out: Path,
    watch: Watch | None = None,
    resume: bool = False,
    restart: bool = False,
    point: str | None = None,
) -> dict[str, Any]:
    """Run the scenario into the directory `out` and return its summary, with its `status`.

    With `resume`, `out` holds this very run, unfinished, and it continues from its last checkpoint; with `restart`, the
    files of an earlier attempt at it are removed. A run that cannot begin leaves the directory as it was.
    If `point` is stated (the name of the sweep's point, or "" for a single run), its loggers are used and others can
    watch it.
    A failed run raises `RunFailed` after all recorded data have been written, also if the operating system refused a
    file, a process or memory; an interrupted run returns.

    It may be called in any thread. Its bits do not depend on the caller's torch settings; runs in several threads of
    one process take turns.
    """
    try:
        return _execute(resolved(scenario), out, watch, resume, restart, point)
    except Exception as error:
        if (line := refusal(error)) is None:
            raise
        raise RunFailed(line) from error


def _execute(
    scenario: Scenario, out: Path, watch: Watch | None, resume: bool, restart: bool, point: str | None
) -> dict[str, Any]:
    beginning: Beginning = "resume" if resume else "restart" if restart else "new"
    with made_and_locked(out, "--out" if beginning == "new" else "--resume") as made:
        try:
            if beginning != "new" and how_far(out, scenario) == "done":
                raise ScenarioError(f"--resume: the run in {out} has come to its end meanwhile")
            if resume:
                checkpoints.newest(out, to_resume=True)  # ScenarioError if none is usable
            text = (out / "scenario.yaml").read_text(encoding="utf-8") if resume else Document.dump(scenario)
            facts = {"seed": scenario.seed, "backend": scenario.backend.name, "scenario_sha256": values_sha256(text)}
            record = RunDirectory(
                out,
                Document.dump(scenario),
                record=scenario.record,
                facts=facts,
                inputs=functools.partial(inputs, scenario),
                distances=scenario.backend.distances,
                beginning=beginning,
            )
            if point is None:
                return _carry_out(scenario, record, watch, None)
            log = record.hearer = live_log(scenario, out, point)
            told = ProgressFile(record, watch)
            try:
                return _carry_out(scenario, record, told, log)
            finally:
                told.remove()
        finally:
            if made:
                removal.remove_if_empty(out)


def _carry_out(scenario: Scenario, record: RunDirectory, watch: Watch | None, log: LiveLog | None) -> dict[str, Any]:
    try:
        run = named_in_code(scenario.backend.execution.runs)
        brought = ", ".join(choices.brought(scenario))
        with users_errors.failing(brought, passed=True) if brought else contextlib.nullcontext():
            outcome: Outcome = run(scaled(scenario), record, watch)
        record.begin()
    except ScenarioError as error:
        end_log(log, {"status": "failed"})
        record.withdraw(str(error))
        raise
    except BaseException as error:
        status: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        end_log(log, {"status": status})
        if record.begun or record.beginning == "new":  # else the files of an earlier attempt stay
            failure = refusal(error) or f"{type(error).__name__}: {error}"
            with _of_less_weight(record):
                record.begin(early=True)
                if isinstance(error, RunFailed) and record.lost() is None:
                    failure = logged(record.path, error)
                record.finish({"failure": failure}, status, None)
            if isinstance(error, RunFailed):
                raise RunFailed(failure) from error
        raise
    params = outcome.params if outcome.params is not None else np.empty(0, np.float32)
    summary = outcome.statistics.summary(
        backend=scenario.backend.name,
        seed=scenario.seed,
        makespan_ns=outcome.makespan_ns,
        updates=outcome.updates,
        final=outcome.final,
        params_sha256=params_sha256(params),
    )
    summary |= outcome.facts
    finite = bool(np.isfinite(params).all())
    told = warnings.after(scenario, outcome.makespan_ns * 1e-9, outcome.updates, outcome.final, finite)
    summary["warnings"] = [*warnings.before(scenario), *outcome.doubts] + (told if outcome.status == "done" else [])
    if scenario.algorithm.shared:
        summary["staleness_counts"] = "pushes of others during the round, not versions: steps read what is there"
    if log is not None:
        summary["logs"], failed = end_log(log, {"status": outcome.status, **summary})
        summary["warnings"] += failed
    if outcome.failure is not None:
        summary["failure"] = outcome.failure
        with _of_less_weight(record):
            record.finish(summary, outcome.status, outcome.params)
        raise RunFailed(outcome.failure)
    record.finish(summary, outcome.status, outcome.params)
    return {"status": outcome.status, **summary}


@contextlib.contextmanager
def _of_less_weight(record: RunDirectory) -> Iterator[None]:
    """Suppress errors of recording after a failure of the run, which is reported; but report a removed directory."""
    try:
        yield
    except (OSError, ScenarioError, RunFailed):
        if (lost := record.lost()) is not None:
            raise RunFailed(lost) from None


def resolved(scenario: Scenario) -> Scenario:
    """The recorded form of the scenario, independent of the current directory and of other runs' tables."""
    return with_samples(anchored(scenario))


def with_samples(scenario: Scenario) -> Scenario:
    """The scenario with the step times of the recorded run named by its hardware, if there is one."""
    compute = scenario.hardware.compute
    if compute.run is None:
        return scenario
    try:
        samples = fit.step_times_s(tables.read(compute.run, "effects"), tables.read(compute.run, "minibatches"))
    except (ScenarioError, OSError) as error:
        raise ScenarioError.at("hardware.compute.run", str(error)) from error
    if not len(samples):
        raise ScenarioError.at(
            "hardware.compute.run", f"{compute.run} recorded no minibatches; run it with record: all"
        )
    compute = compute.model_copy(update={"run": None, "samples_s": fit.few(samples).tolist()})
    return scenario.model_copy(update={"hardware": scenario.hardware.model_copy(update={"compute": compute})})
