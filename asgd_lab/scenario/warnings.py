"""Warnings on allowed but doubtful values of a scenario or a finished run: pure functions to lines `key: sentence`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import asgd_lab.scenario.without_effect as without_effect
from asgd_lab.scenario.points import Point
from asgd_lab.scenario.schema import Scenario


def before(scenario: Scenario) -> list[str]:
    """Warnings before the run."""
    found = [
        *_rounds(scenario),
        *_never(scenario),
        *_learning(scenario),
        *without_effect.ignored(scenario),
    ]
    return [f"{key}: {sentence}" for key, sentence in found]


def after(scenario: Scenario, makespan_s: float, updates: int, final: Mapping[str, float], finite: bool) -> list[str]:
    """Warnings after the run; `finite` says whether all its parameters are finite."""
    found: list[tuple[str, str]] = []
    if not updates and not scenario.algorithm.shared:
        found.append(
            ("budget", "nothing was pushed before the end: a worker's first round takes longer than all of it")
        )
    lost = [name for name, value in final.items() if value is None or not math.isfinite(value)]
    if not finite or lost:
        what = "the final parameters are" if not finite else f"{', '.join(lost)} is"
        found.append(("task.optimizer", f"{what} not finite: training has diverged; use a lower rate, or task.clip"))
    if scenario.backend.execution.has_clock and scenario.budget.seconds is None:
        found += _later(scenario, makespan_s)
    return [f"{key}: {sentence}" for key, sentence in found]


def alike(points: Sequence[Point]) -> list[str]:
    """Warnings on points of a sweep that are the same run under two names."""
    first: dict[str, str] = {}
    found = []
    for point in points:
        said = point.scenario.model_dump_json()
        if said in first:
            found.append(f"sweep: {point.name} is the same run as {first[said]}")
        first.setdefault(said, point.name)
    return found


def _rounds(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Warnings on workers that get no share of the budget."""
    algorithm, minibatches, updates = scenario.algorithm, scenario.budget.minibatches, scenario.budget.updates
    if updates is not None and updates < scenario.workers and not (algorithm.collects or algorithm.shared):
        few = f"{updates:,} updates are at most {updates:,} workers' pushes, and there are {scenario.workers:,} workers"
        yield "budget.updates", few
    if minibatches is None or scenario.workers == 1:
        return
    busy = math.ceil(minibatches / algorithm.n_fetch)
    if busy < scenario.workers:
        key = "workers" if algorithm.n_fetch == 1 else "algorithm"
        yield (
            key,
            f"at most {busy:,} of {scenario.workers:,} workers train: a round takes {algorithm.n_fetch:,} of the "
            f"budget's {minibatches:,} minibatches",
        )


def _never(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Warnings on events that would happen only after the end."""
    budget, backend, evaluate = scenario.budget, scenario.backend, scenario.evaluate
    minibatches, versions = budget.minibatches, _versions(scenario)
    if minibatches is not None:
        if budget.updates is not None and budget.updates > (most := _most_pushes(scenario, minibatches)):
            yield "budget.updates", f"is never reached: {minibatches:,} minibatches are at most {most:,} pushes"
        if evaluate is not None and evaluate.interval(scenario.workers) > minibatches:
            yield "evaluate", f"nothing is evaluated on the way: the budget is {minibatches:,} minibatches"
        for key in budget.keys_in_pushes:
            if budget.target_window > minibatches:
                yield f"budget.{key}", f"is never reached: its window is wider than {minibatches:,} minibatches"
        yield from _patience(scenario, minibatches)
        bound = getattr(scenario.algorithm, "bound", None)
        if bound is not None and bound and bound * scenario.algorithm.n_fetch >= minibatches:
            yield "algorithm.bound", f"never holds a worker back within {minibatches:,} minibatches"
    checkpoint = backend.checkpoint
    if checkpoint is not None:
        if versions is not None and (checkpoint.every_updates or 0) > versions:
            yield "backend.checkpoint", f"none is saved: the run makes at most {versions:,} versions"
        if budget.seconds is not None and (checkpoint.every_s or 0.0) >= budget.seconds:
            yield "backend.checkpoint", f"none is saved: the run ends after {budget.seconds:g} s"
    if versions is not None and (backend.digest_every_updates or 0) > versions:
        yield "backend.digest_every_updates", f"none is recorded: the run makes at most {versions:,} versions"
    if budget.seconds is not None:
        yield from _later(scenario, budget.seconds)


def _patience(scenario: Scenario, minibatches: int) -> Iterator[tuple[str, str]]:
    """A warning on an early stop with more patience than the run has observations."""
    budget, evaluate = scenario.budget, scenario.evaluate
    stop = budget.early_stop
    told = stop is not None and stop.in_pushes and budget.target_window > minibatches
    if stop is None or told or (not stop.in_pushes and evaluate is None):
        return
    first = 0 if stop.in_pushes else 1  # the parameters are evaluated at the start too
    every = budget.target_window if evaluate is None or stop.in_pushes else evaluate.interval(scenario.workers)
    most = minibatches // every + first
    if most <= stop.patience:
        what = f"{minibatches:,} minibatches have at most {most:,} observations of it"
        yield "budget.early_stop", f"is never reached: {what}, and its patience is {stop.patience:,}"


def _later(scenario: Scenario, end_s: float) -> Iterator[tuple[str, str]]:
    for index, each in enumerate(scenario.faults.schedule if scenario.faults is not None else ()):
        if each.at_s >= end_s:
            yield f"faults.schedule.{index}", f"never happens: it is due at {each.at_s:g} s, and the end is {end_s:g} s"


def _learning(scenario: Scenario) -> Iterator[tuple[str, str]]:
    task, minibatches, versions = scenario.task, scenario.budget.minibatches, _versions(scenario)
    schedule = getattr(task, "schedule", None)
    if schedule is not None:
        end = minibatches if schedule.clock == "steps" else versions
        for key in ("length", "every", "warmup"):
            if end is not None and (getattr(schedule, key) or 0) > end:
                yield (
                    f"task.schedule.{key}",
                    f"is beyond the end of the run, which has at most {end:,} {schedule.clock}",
                )
    warm = scenario.warm_start.minibatches if scenario.warm_start is not None else None
    if warm is not None and minibatches is not None and warm > minibatches:
        yield "warm_start.minibatches", f"is more than the run itself takes, {minibatches:,}"
    optimizer = getattr(task, "optimizer", None)
    if optimizer is not None and optimizer.options.get("lr") == 0 and scenario.algorithm.push == "delta":
        yield "task.optimizer.lr", "is 0: nothing is learned"


def _versions(scenario: Scenario) -> int | None:
    """The most versions that the run can make; None if the budget does not limit them."""
    budget = scenario.budget
    counts = [budget.updates] if budget.updates is not None else []
    if budget.minibatches is not None:
        counts.append(_most_pushes(scenario, budget.minibatches))
    return min(counts, default=None)


def _most_pushes(scenario: Scenario, minibatches: int) -> int:
    # Each worker may push a shorter last round.
    return minibatches // scenario.algorithm.n_push + scenario.workers
