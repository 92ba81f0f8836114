"""The recorded course of a run: every message that its server heard, in order, and what a repetition must end with.

A real run has an event log. A simulation, or an inline run, is a function of its scenario: it runs again, and its
server is overheard.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm
from asgd_lab.backends.event_log import UNKNOWN, Attach, Digest, Kind, Row
from asgd_lab.backends.overhearing import overhearing
from asgd_lab.backends.replayed_worker import StoppedLease, stopped_leases
from asgd_lab.backends.run import execute
from asgd_lab.backends.verification import FINAL, check_gpus, summary_of
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.messages import Answer, Close, FetchRequest, Join, Leave, Message, PushRequest, Wake
from asgd_lab.record import atomic_files
from asgd_lab.record.run import read_manifest
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.scaling import scaled

_MESSAGES = Join | Leave | FetchRequest | PushRequest | Close | Wake | Attach | Digest


class Event(NamedTuple):
    """A message as the server heard it, or a mark of the log; with its immediate answer, where that is recorded."""

    message: Message | Attach | Digest
    now_ns: int
    answer: Answer | None = None
    is_answer_known: bool = False


@dataclass(frozen=True, slots=True)
class Course:
    """The order of a run, in the scenario that is executed."""

    scenario: Scenario
    events: Sequence[Event]
    stopped: Mapping[tuple[int, int], Mapping[int, StoppedLease]]
    final: npt.NDArray[np.float32] | None  # (P,) the last version; None: it was not saved
    notes: list[str] = field(default_factory=list)


def of_run(run_dir: Path, scenario: Scenario) -> Course:
    """The course of the run in `run_dir`; a `ScenarioError` says in a line why there is none."""
    if not scenario.task.learns:
        raise ScenarioError(
            f"{run_dir}: task {scenario.task.name} learns nothing: it has no loss that could be explained"
        )
    if build_algorithm(scenario).shared:
        raise ScenarioError(f"{run_dir}: is a run of {scenario.algorithm.name}, whose updates have no order to keep")
    check_gpus(scenario, run_dir)
    return _logged(run_dir, scenario) if scenario.backend.execution.logged else _simulated(run_dir, scenario)


def _logged(run_dir: Path, scenario: Scenario) -> Course:
    past = event_log.read(run_dir / event_log.FILE)
    events = [
        Event(message, row.begun_ns, row.answer, row.heard_ns != UNKNOWN)
        for row in past
        if isinstance(message := row.message, _MESSAGES)
    ]
    if not any(isinstance(event.message, PushRequest) for event in events):
        raise ScenarioError(f"{run_dir / event_log.FILE}: holds no pushes; there is nothing to explain")
    final = None
    if os.path.lexists(run_dir / FINAL):
        final = atomic_files.read_arrays(run_dir / FINAL).get("params")
    notes = [] if final is not None else ["it has no final parameters: the self-check compares its pushes alone"]
    if (status := read_manifest(run_dir).get("status")) != "done":
        notes.append(f"it is {status}: what was recorded until then is explained")
    return Course(scenario, events, stopped_leases(past), final, notes)


def _simulated(run_dir: Path, scenario: Scenario) -> Course:
    summary = summary_of(run_dir)
    if (status := summary.get("status")) != "done":
        raise ScenarioError(f"{run_dir}: is {status}: a simulation that has not come to its end has no order to keep")
    again, notes = _again(scenario, summary.get("numerics", {}).get("mode") == "batched")
    with overhearing() as heard, tempfile.TemporaryDirectory() as folder:
        own = execute(again, Path(folder) / "run")
        final = atomic_files.read_arrays(Path(folder) / "run" / FINAL)["params"]
    if not notes and own["params_sha256"] != summary["params_sha256"]:
        raise ScenarioError(f"{run_dir}: simulated again it has other final parameters; `asgd-lab replay` says more")
    events = [Event(each.message, each.now_ns) for each in heard]
    return Course(scaled(again), events, _stops(each.message for each in heard), final, notes)


def _again(scenario: Scenario, is_batched: bool) -> tuple[Scenario, list[str]]:
    """The scenario to simulate again, without records and without evaluations that decide nothing."""
    budget, backend = scenario.budget, scenario.backend
    decides = [each for each in (budget.target, budget.early_stop) if each is not None and not each.in_pushes]
    changes: dict[str, Any] = {"record": "summary", "evaluate": scenario.evaluate if decides else None}
    notes = []
    if backend.execution.batches:
        changes["backend"] = backend.model_copy(update={"numerics": "sequential", "distances": False})
    if is_batched:
        notes.append("it was computed in batched numerics: dose 1 is compared with its sequential simulation")
    return scenario.model_copy(update=changes), notes


def _stops(messages: Iterable[Message]) -> Mapping[tuple[int, int], Mapping[int, StoppedLease]]:
    """The stopped leases; in place of a time, each message has its place in the order."""
    return stopped_leases(
        [
            Row(
                Kind.PUSH if isinstance(each, PushRequest) else Kind.FETCH, each.worker, each.incarnation, each.number,
                stopped=each.stopped, wasted=each.wasted, returned=each.returned, received_ns=index,
            )
            for index, each in enumerate(messages)
            if isinstance(each, FetchRequest | PushRequest)
        ]
    )  # fmt: skip
