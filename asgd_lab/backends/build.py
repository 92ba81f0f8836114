"""Builds the objects of every backend from a scenario: the task, the algorithm, the server, and the workers."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from asgd_lab import tasks
from asgd_lab.backends import devices, overhearing
from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.client import Client
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.members import Budget, EarlyStop
from asgd_lab.protocol.parameters import Memory, Parameters
from asgd_lab.protocol.parameters_in_parts import InParts
from asgd_lab.protocol.parts import spans
from asgd_lab.protocol.programs import in_parts
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.server import Server
from asgd_lab.protocol.window import Patience
from asgd_lab.record.saved_model import saved
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.running import Observed
from asgd_lab.tasks.base import Learner, Task, one_line

Facts = dict[str, Any]
WARM_UP_WORKER = -1  # the data order of a warm start, different from any worker's
_WARMED_BYTES = 2**26
# Results of warm starts: the points of a sweep share them.
_warmed: dict[Hashable, tuple[Tensor, dict[str, Tensor]]] = {}


def build_algorithm(scenario: Scenario) -> Algorithm:
    """The scenario's algorithm; the vector has a part for each independent server."""
    algorithm, server = scenario.algorithm.build(scenario.workers), scenario.hardware.server
    return replace(algorithm, parts=server.count, apart=True) if server.independent else algorithm


def check_wake(scenario: Scenario, server: Server) -> None:
    """A `ScenarioError` if the gate has asked the server to be woken, and the scenario's backend has no clock."""
    if server.wake_ns is not None and not scenario.backend.execution.has_clock:
        message = f"needs a clock, which backend {scenario.backend.name} does not have: its gate asks to be woken"
        raise ScenarioError.at("algorithm.name", f"{scenario.algorithm.name} {message}; use sim or process")


def hold_doubts(algorithm: Algorithm) -> list[str]:
    """A warning if the gate may hold fetches back, and does not say that it does.

    A fact that is computed, as by a gate that has the facts of another one, is believed.
    """
    gate = algorithm.gate
    if type(gate).may_fetch is Gate.may_fetch or inspect.getattr_static(gate, "holds_back") is not False:
        return []
    said = "has a may_fetch, and holds_back is False: a run fails at the first fetch that it holds back"
    return [f"algorithm.name: the gate of {algorithm.name} {said}; if it may do so, set holds_back = True"]


def clock_doubts(scenario: Scenario, algorithm: Algorithm) -> list[str]:
    """A warning if the gate reads times, and the scenario's backend has no clock."""
    if scenario.backend.execution.has_clock or not algorithm.gate.needs_clock:
        return []
    said = f"reads times or speeds, and backend {scenario.backend.name} has no clock: all are 0"
    return [f"algorithm.name: the gate of {scenario.algorithm.name} {said}"]


def build_task(
    scenario: Scenario, data: dict[str, Tensor] | None = None, *, checked: bool = False,
    device: torch.device | None = None,
) -> Task:  # fmt: skip
    """The scenario's task, over data that is already loaded or is loaded here.

    It is tried with real minibatches, unless the process that started this one has `checked` it. torch's current device
    is then `device`, which a user's model may use by itself; None: the device of a process that computes for all.
    """
    devices.check(scenario)
    devices.use(devices.home(scenario) if device is None else device, scenario.backend.deterministic)
    data = tasks.load(scenario.task) if data is None else data
    task = tasks.build(scenario.task, scenario.seed, data, scenario.workers, checked=True)
    if not checked:
        check_task(scenario, task)
    return task


def check_task(scenario: Scenario, task: Task) -> None:
    """Try a task out where this process computes, with two real minibatches; a `ScenarioError` says what does not
    fit.
    """
    device = devices.home(scenario)
    task.check(gradients=scenario.algorithm.push == "gradient", device=device)
    if scenario.backend.checkpoint is not None:
        task.check_resume(device=device)
    found = evaluated(task, device) if limits_by_evaluation(scenario) else ()
    check_limits(scenario, has_error=task.has_error, evaluated=found)


def evaluated(task: Task, device: torch.device) -> Sequence[tuple[str, str]]:
    """Split and metric of each row of a checked task's evaluations, found by one if the task does not tell them."""
    if task.evaluated is not None:
        return task.evaluated
    try:
        return [(split, metric) for split, metric, _ in task.evaluate(task.initial().to(device))]
    except Exception as error:
        raise ScenarioError.at("task.name", f"its evaluation fails: {one_line(error)}") from error


def limits_by_evaluation(scenario: Scenario) -> dict[str, Observed]:
    """The keys of the budget's limits that are judged by evaluations, with their metrics."""
    limits = {"target": scenario.budget.target, "early_stop": scenario.budget.early_stop}
    return {key: limit for key, limit in limits.items() if limit is not None and not limit.in_pushes}


def check_limits(scenario: Scenario, *, has_error: bool, evaluated: Sequence[tuple[str, str]]) -> None:
    """A `ScenarioError` for a limit of the budget whose metric the task does not have."""
    of_errors = [key for key, metric in scenario.budget.keys_in_pushes.items() if metric == "error"]
    if of_errors and not has_error:
        message = "needs a task with an error: one class a label, and an output for each class; use minibatches"
        raise ScenarioError.at(f"budget.{of_errors[0]}", message)
    for key, limit in limits_by_evaluation(scenario).items():
        check_limit(key, limit, evaluated)


def check_limit(key: str, limit: Observed, evaluated: Sequence[tuple[str, str]]) -> None:
    """A `ScenarioError` if the metric that may end the run is none of these evaluations, pairs of split and metric."""
    if (limit.split, limit.metric) not in evaluated:
        known = ", ".join(f"{split} {metric}" for split, metric in evaluated) or "none"
        message = f"has no metric of the evaluations, {limit.split} {limit.metric}; they have: {known}"
        raise ScenarioError.at(f"budget.{key}", message)


def check_schedules(scenario: Scenario, most_steps: int | None) -> list[str]:
    """A `ScenarioError` if some worker must take more minibatches than its schedule has, `most_steps`; a warning if one
    may.
    """
    budget, workers = scenario.budget, scenario.workers
    warm, all_of_them = scenario.warm_start, budget.minibatches
    ends = f"a scheduler ends after {most_steps:,} minibatches of a worker" if most_steps is not None else ""
    if most_steps is not None and warm is not None and (warm.minibatches or 0) > most_steps:
        raise ScenarioError.at("warm_start.minibatches", f"must be at most {most_steps:,}: {ends}")
    if most_steps is None or all_of_them is None or all_of_them <= most_steps:
        return []
    others = ("updates", "seconds", "target_error", "target", "early_stop")
    is_sure = scenario.faults is None and all(getattr(budget, each) is None for each in others)
    if all_of_them > most_steps * workers and is_sure:
        total = f"{all_of_them:,} minibatches over {workers:,} worker{'s' if workers > 1 else ''}"
        raise ScenarioError.at("budget.minibatches", f"{ends}, and the run takes {total}; give the scheduler more")
    if scenario.algorithm.collects and all_of_them <= most_steps * workers:  # all workers take as many
        return []
    return [f"budget.minibatches: {ends}, and one worker may take up to {all_of_them:,}; the run would fail there"]


def build_budget(scenario: Scenario) -> Budget:
    """The part of the budget that the server checks."""
    budget = scenario.budget
    stop = budget.stop_in_pushes
    return Budget(
        budget.minibatches, budget.updates, budget.error_in_pushes, budget.loss_in_pushes, budget.target_window,
        None if stop is None else EarlyStop(stop.metric == "error", stop.patience, stop.min_delta),
    )  # fmt: skip


def end_facts(scenario: Scenario, server: Server, outside: str | None = None, seen: Patience | None = None) -> Facts:
    """Facts for the summary of a run that has come to its end: the budget's limit that it reached first.

    `outside` is a limit that its backend has found; otherwise it is the server's. `seen` is the state of an early stop
    by evaluations.
    """
    by = server.ended_by or outside or "minibatches"
    if by == "target_error" and scenario.budget.target_error is None:
        by = "target"
    patience = seen or (None if server.limits is None else server.limits.patience)
    found: Facts = {"ended_by": by}
    if patience is not None:
        counts = {"observations": patience.observations, "since_best": patience.since_best}
        found["early_stop"] = {"best": patience.best, **counts}
    return found


def initial_parameters(scenario: Scenario, task: Task) -> Tensor:
    """(P,) the parameters at version 0, on this process's device: the task's own, or those of the warm start.

    After a warm start, new learners also start with its buffers.
    """
    params = task.initial().to(devices.home(scenario))
    warm, backend = scenario.warm_start, scenario.backend
    if warm is None or not task.size:
        return params
    if warm.run is not None:
        try:
            found = saved(warm.run)
            loaded = torch.from_numpy(found.params)
        except (ScenarioError, OSError, ValueError) as error:
            raise ScenarioError.at(
                "warm_start.run", f"{error}; give the directory of a run or of a checkpoint"
            ) from error
        if loaded.shape != params.shape:
            message = f"{warm.run} has {loaded.numel()} parameters; this task has {params.numel()}"
            raise ScenarioError.at("warm_start.run", message)
        task.start_with({name: torch.from_numpy(value) for name, value in found.buffers.items()})
        return params.copy_(loaded)
    data = (tasks.facts_of(scenario.task) or {}).get("sha256")
    key = (scenario.task.model_dump_json(), data, scenario.seed, warm.minibatches, params.device, backend.deterministic)
    if key in _warmed:
        warmed, buffers = _warmed[key]
        task.start_with(buffers)
        return params.copy_(warmed)
    learner = task.learner(WARM_UP_WORKER, params)
    for step in range(warm.minibatches or 0):
        try:
            learner.minibatch(step)
        except Exception as error:
            raise RunFailed(f"the warm start's minibatch {step} failed: {one_line(error)}") from error
    buffers = {name: each.clone() for name, each in learner.buffers().items()}
    task.start_with(buffers)
    size_bytes = _bytes_of(params, buffers)
    if size_bytes + sum(_bytes_of(*each) for each in _warmed.values()) > _WARMED_BYTES:
        _warmed.clear()
    if size_bytes <= _WARMED_BYTES:
        _warmed[key] = params.clone(), buffers
    return params


def _bytes_of(params: Tensor, buffers: Mapping[str, Tensor]) -> int:
    return params.nbytes + sum(each.nbytes for each in buffers.values())


@dataclass(slots=True, eq=False)
class Worker:
    """One life of a worker, for every backend: its replica, its learner, and its client."""

    replica: Replica
    learner: Learner
    client: Client


def build_worker(
    task: Task, algorithm: Algorithm, worker: int, initial: Tensor, updates: Sequence[Tensor],
    params: Tensor | None = None,
) -> Worker:  # fmt: skip
    """A worker whose parameters start at a copy of `initial`; its updates use the buffers `updates` in turn.

    If `params` are given it trains in them, and does not change their values before it adopts a center.
    """
    params = initial.clone() if params is None else params
    parts = algorithm.parts
    if task.size:
        if parts > task.size:
            raise ScenarioError.at("algorithm", f"cannot divide {task.size} parameters into {parts} parts")
        center = initial.clone() if parts else params  # parts are fetched into it
        vectors = algorithm.vectors(params, center, updates[0])
        learner = task.learner(worker, params, vectors.gradients)
        resets = algorithm.momentum_at_fetch == "reset"

        def after_adopt() -> None:
            learner.version = replica.version
            if resets:
                learner.reset_momentum()

        replica = Replica(worker, vectors, after_adopt, updates, task.size_bytes, algorithm.codec, parts)
    else:
        learner = task.learner(worker, params)
        replica = Replica(worker, size_bytes=task.size_bytes, codec=algorithm.codec, parts=parts)
    program = algorithm.program(replica)
    return Worker(
        replica, learner, Client(replica, in_parts(program, worker, parts, algorithm.apart) if parts else program)
    )


def build_server(
    task: Task,
    algorithm: Algorithm,
    budget: Budget,
    initial: Tensor,
    mailboxes: Mapping[int, Tensor],
    memory: Memory | None = None,
    counting: bool = False,
    workers: int = 1,
) -> Server:
    """The server; it only counts for a task without parameters, or if workers share the parameters.

    `workers` in the run; see `Parameters` for the rest.
    """
    parameters: Parameters | InParts | None = None
    if task.size and not algorithm.shared:
        if algorithm.parts:
            each = spans(task.size, algorithm.parts)
            parameters = InParts(initial, algorithm.rule, mailboxes, each, workers, memory, counting)
        else:
            parameters = Parameters(initial, algorithm.rule, mailboxes, memory, counting)
    return overhearing.server(algorithm.gate, algorithm.n_fetch, budget, parameters, algorithm.parts, algorithm.apart)
