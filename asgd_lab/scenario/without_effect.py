"""Stated values without effect beside others: pure functions to (dotted key, sentence), for warnings.

Silent are: a value that says the same as the default (speed 1, momentum 0, schedule constant), a limit that happens
not to be reached (enough cores, a fast link), an effect that needs several workers, and keys of learning beside a task
that learns nothing, since one file serves both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from asgd_lab.scenario.hardware import Hardware, Link
from asgd_lab.scenario.running import Budget, Faults, Kill, ServerDown, Slow, Stop
from asgd_lab.scenario.schema import Scenario
from asgd_lab.task_keys.optimizers import TINY_GRADIENT

Found = Iterator[tuple[str, str]]


def ignored(scenario: Scenario) -> Found:
    """Every value without effect."""
    yield from _task(scenario)
    yield from _algorithm(scenario)
    yield from _run(scenario)
    yield from _hardware(scenario)
    if scenario.faults is not None:
        yield from _faults(scenario, scenario.faults)


def _task(scenario: Scenario) -> Found:
    task: Any = scenario.task
    if _moves_nothing(scenario):
        yield (
            "task.optimizer",
            "changes nothing beside push: gradient where a fetch follows each minibatch: only the rule makes steps",
        )
    yield from _dampening("task.optimizer", getattr(getattr(task, "optimizer", None), "options", {}))
    yield from _schedule(getattr(task, "schedule", None))
    for key in ("norm", "value"):
        limit = getattr(getattr(task, "clip", None), key, None)
        if limit is not None and limit < TINY_GRADIENT:
            yield f"task.clip.{key}", f"is {limit:g}: next to nothing is learned from so small a gradient"
    biases = getattr(task, "biases", None)
    if biases is not None and biases.lr == 1 and biases.weight_decay is None:
        yield "task.biases", "changes nothing: their rates are the optimizer's own"
    if getattr(task, "noise", None) == 0 and task.batch_size > 1:
        yield "task.batch_size", "changes nothing without noise: all samples are equal"
    if getattr(task, "data_folder", None) is not None and not task.reads_folder:
        yield "task.data_folder", f"is ignored: dataset {task.dataset} is not read from a folder"


def _moves_nothing(scenario: Scenario) -> bool:
    """Whether a stated local optimizer's steps have no effect at all."""
    task, algorithm, warm, evaluate = scenario.task, scenario.algorithm, scenario.warm_start, scenario.evaluate
    sees = (warm is not None and warm.minibatches) or (evaluate is not None and "replicas" in evaluate.parameters)
    stated = "optimizer" in task.model_fields_set
    return stated and algorithm.push == "gradient" and algorithm.n_fetch == 1 and not sees


def _dampening(key: str, options: dict[str, Any]) -> Found:
    if options.get("dampening") and not options.get("momentum"):
        yield f"{key}.dampening", "changes nothing without momentum"


def _schedule(schedule: Any) -> Found:
    if schedule is None:
        return
    if schedule.warmup == 1:
        yield "task.schedule.warmup", "is 1: the first minibatch has the whole rate already"
    if schedule.name == "constant" and schedule.clock != "steps" and schedule.warmup < 2:
        yield "task.schedule.clock", "changes nothing: a constant rate follows no clock"
    if schedule.name == "step" and schedule.factor == 1:
        yield "task.schedule.factor", "is 1: the rate stays as it is"
    if schedule.name in ("linear", "cosine") and schedule.final == 1:
        yield "task.schedule.final", "is 1: the rate stays as it is"


def _algorithm(scenario: Scenario) -> Found:
    algorithm: Any = scenario.algorithm
    optimizer = getattr(scenario.task, "optimizer", None)
    if getattr(algorithm, "momentum_at_fetch", None) == "reset" and optimizer is not None and not optimizer.has_state:
        yield "algorithm.momentum_at_fetch", "changes nothing: SGD without momentum has no state to reset"
    for index, link in enumerate(algorithm.rule):
        yield from _dampening(f"algorithm.rule.{index}", getattr(link, "options", {}))
        if getattr(link, "nesterov", False) and getattr(link, "beta", None) == 0:
            yield f"algorithm.rule.{index}.nesterov", "changes nothing without momentum: beta is 0"


def _run(scenario: Scenario) -> Found:
    budget, task, backend = scenario.budget, scenario.task, scenario.backend
    if not budget.keys_in_pushes and budget.target_window != Budget.model_fields["target_window"].default:
        yield "budget.target_window", "changes nothing without a limit for the error or the loss in the pushes"
    if scenario.warm_start is not None and not task.learns:
        yield "warm_start", f"changes nothing beside task {task.name}, which learns nothing"
    if backend.numerics != "sequential" and not task.learns:
        yield "backend.numerics", f"changes nothing beside task {task.name}, which computes nothing"
    evaluate = scenario.evaluate
    if evaluate is not None and len(set(evaluate.parameters)) < len(evaluate.parameters):
        yield "evaluate.parameters", "names the same parameters twice"


def _hardware(scenario: Scenario) -> Found:
    backend, hardware = scenario.backend, scenario.hardware
    execution = backend.execution
    if (execution.measured or not execution.has_clock) and backend.device != "emulated":
        if hardware != Hardware():
            what = f"a real one on {backend.device}" if execution.has_clock else f"backend {execution.name}"
            but = " except for independent servers" if hardware.server.independent else ""
            yield "hardware", f"is for simulated and emulated runs; {what} ignores it{but}"
        return
    server, device, host = hardware.server, hardware.device, hardware.host
    if len(hardware.speeds) > scenario.workers:
        yield "hardware.speeds", f"has {len(hardware.speeds):,} for {scenario.workers:,} workers; the rest is ignored"
    if device.memory_bytes is None:
        for key in ("vectors", "activations_bytes"):
            if getattr(device, key) != type(device).model_fields[key].default:
                yield f"hardware.device.{key}", "changes nothing without hardware.device.memory_bytes"
    if host.workers > 1 and host.bandwidth_bytes_per_s is None and host.cores is None:
        yield "hardware.host.workers", "changes nothing: the host has neither bandwidth_bytes_per_s nor cores to share"
    yield from _link("hardware.link", hardware.link)
    for index, link in enumerate(hardware.links):
        yield from _link(f"hardware.links.{index}", link)
    if hardware.groups and not hardware.links and all(group.speed == 1 for group in hardware.groups):
        yield "hardware.groups", "change nothing: all speeds are 1, and no link leads to a group"
    costs = (server.push_s, server.fetch_s, server.push_bytes_per_s, server.fetch_bytes_per_s)
    if server.distribution != "constant" and not any(costs):
        yield "hardware.server.distribution", "changes nothing: the server's times are 0"
    falls = any(isinstance(each, ServerDown) for each in (scenario.faults.schedule if scenario.faults else ()))
    if server.one_sided_fetch and not any(costs) and not falls:
        yield "hardware.server.one_sided_fetch", "changes nothing: the server is never busy, its times are 0"


def _link(key: str, link: Link) -> Found:
    if link.shared and link.up is None and link.down is None:
        yield f"{key}.shared", "changes nothing: there is no bandwidth to share; give bandwidth_bytes_per_s"


def _faults(scenario: Scenario, faults: Faults) -> Found:
    deaths = faults.mean_time_between_failures_s is not None or any(isinstance(each, Kill) for each in faults.schedule)
    if scenario.backend.execution.simulated and not deaths:
        for key in ("detect_s", "on_death"):
            if getattr(faults, key) != Faults.model_fields[key].default:
                yield f"faults.{key}", "changes nothing: no worker dies"
    if faults.mean_time_to_repair_s is not None and faults.on_death != "restart":
        yield "faults.mean_time_to_repair_s", f"is ignored: on_death is {faults.on_death}"
    for index, each in enumerate(faults.schedule):
        key = f"faults.schedule.{index}"
        if isinstance(each, Kill) and each.repair_s and faults.on_death != "restart":
            yield f"{key}.repair_s", f"is ignored: on_death is {faults.on_death}"
        if isinstance(each, Slow) and each.factor == 1:
            yield f"{key}.factor", "is 1: nothing is slower"
        for place, other in enumerate(faults.schedule):
            if place != index and _prevents(other, each, faults, earlier=place < index):
                yield key, f"changes nothing: {_WHEN[type(other)]} from {other.at_s:g} s on"
                break


_WHEN = {Kill: "the worker is dead", Stop: "the worker is stopped", ServerDown: "the server is down"}


def _prevents(one: Any, other: Any, faults: Faults, *, earlier: bool) -> bool:
    """Whether a fault leaves nothing for another to do; `earlier`: it is the earlier of the two in the list."""
    server = isinstance(one, ServerDown)
    if server != isinstance(other, ServerDown) or not (server or one.worker == other.worker):
        return False
    before = one.at_s < other.at_s or (earlier and one.at_s == other.at_s)
    if isinstance(one, Kill):
        ends_s = one.at_s + one.repair_s if faults.on_death == "restart" else math.inf
        return before and (other.at_s == one.at_s or other.at_s < ends_s) and getattr(other, "until_s", 0.0) <= ends_s
    if server:
        return before and other.at_s + other.for_s <= one.at_s + one.for_s
    # An inner stop would end the outer one, unless both end together.
    return isinstance(one, Stop) and isinstance(other, Stop) and before and one.until_s == other.until_s
