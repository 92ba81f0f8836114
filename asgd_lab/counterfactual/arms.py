"""Arms: one execution of a course each, at a dose, a rate and a seed, with at most one other cause removed."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from asgd_lab.backends.build import build_algorithm
from asgd_lab.counterfactual.course import Course
from asgd_lab.counterfactual.doses import Fetched, Targets, Window
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol import programs
from asgd_lab.protocol.gates import Asynchronous
from asgd_lab.protocol.messages import PushRequest
from asgd_lab.scenario import Scenario
from asgd_lab.tasks import Learner, Task

STALENESS: Final = "staleness"
LOCK_STEP: Final = "lock-step"
CAUSES: Final[Mapping[str, str]] = {
    STALENESS: "each fetch is moved to a later version",
    "drift": "every gradient of a round is that at the fetched point, instead of along the worker's own way",
    "momentum": "the local optimizer's state is reset at each fetch, or kept where the record resets it",
    "shares": "the updates of each worker are weighed so that all have the same share of minibatches",
    LOCK_STEP: "pushes in groups of as many as there are workers: each group's fetches bring the version before it",
    "placebo": "each worker has the data order of the next one: nothing that matters has changed",
}
"""The causes that can be removed, and what their removal does."""
WATERFALL: Final = "waterfall"
PLAYERS: Final = (LOCK_STEP, "drift")
"""The causes of a waterfall: without both, a run is synchronous SGD of the same minibatches."""
TOGETHER: Final = "+".join(PLAYERS)


class Arm(NamedTuple):
    """The settings of one execution: `cause` is removed but for the share `dose`."""

    cause: str = STALENESS
    dose: float = 1.0
    rate: float = 1.0  # times the record's learning rate
    seed: int = 0


def with_rate(scenario: Scenario, rate: float) -> Scenario:
    """The scenario with its learning rate times `rate`, at the workers and in the server's rule for gradients."""
    if rate == 1:
        return scenario
    task: Any = scenario.task
    config = getattr(task, "optimizer", None)
    if config is None:
        raise ScenarioError(f"rates: the optimizer is made by the code of task {task.name}; only rate 1 is possible")
    lr = config.options.get("lr", _default_lr(config.name))
    if lr is None:
        raise ScenarioError(f"rates: {config.name} has no keyword lr; only rate 1 is possible")
    values = {"name": config.name, **config.options, "lr": lr * rate}
    changes: dict[str, Any] = {"task": task.model_copy(update={"optimizer": type(config).model_validate(values)})}
    if scenario.algorithm.push == "gradient":
        algorithm: Any = scenario.algorithm
        rule = [
            link.model_copy(update={"lr": link.lr * rate}) if getattr(link, "lr", None) is not None else link
            for link in algorithm.rule
        ]
        changes["algorithm"] = algorithm.model_copy(update={"rule": rule})
    return scenario.model_copy(update=changes)


def _default_lr(name: str) -> float | None:
    kind = getattr(torch.optim, name, None)
    found = inspect.signature(kind).parameters.get("lr") if kind is not None else None
    return None if found is None or found.default is inspect.Parameter.empty else float(found.default)


def equal_shares(course: Course) -> Mapping[int, float]:
    """Factors on each worker's updates, after which all workers that pushed have the same weight in minibatches."""
    taken: Counter[int] = Counter()
    for event in course.events:
        if isinstance(event.message, PushRequest) and event.message.part <= 0:
            taken[event.message.worker] += event.message.steps
    mean = sum(taken.values()) / len(taken)
    return {worker: mean / count for worker, count in taken.items()}


def check_causes(scenario: Scenario, causes: Sequence[str]) -> None:
    """A `ScenarioError` if the removal of one of the causes would not be what its name says."""
    built, stated = build_algorithm(scenario), scenario.algorithm
    linear = all(link.adds_up for link in stated.rule)
    apart = built.program is not programs.coupled or built.overlaps or built.parts or built.codec is not None
    is_asynchronous = type(built.gate) is Asynchronous
    if WATERFALL in causes and (not linear or apart or not is_asynchronous):
        what = "needs pushes that are added one by one as they are: asgd with n_sync, and rules scale, add or sgd"
        raise ScenarioError(f"causes: {WATERFALL} {what}")
    if LOCK_STEP in causes and (built.parts or not is_asynchronous):
        what = f"needs a gate that applies each push at once, as one version; {stated.name} has another, or parts"
        raise ScenarioError(f"causes: {LOCK_STEP} {what}")


def in_groups(windows: Sequence[Window], workers: int) -> Targets:
    """The versions that the fetches bring if pushes are in groups of `workers`: the last one before the group."""
    found: dict[Fetched, int] = {}
    for fetch, _, latest in windows:
        found[fetch] = latest - latest % workers
    return found


class NextWorkersData:
    """A task whose every worker has the data order, the noise and the dropout of the next one."""

    def __init__(self, task: Task, workers: int) -> None:
        self._task, self._workers = task, workers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> Learner:
        """See `Task`; a warm start's learner is the task's own."""
        return self._task.learner((worker + 1) % self._workers if worker >= 0 else worker, params, gradients)
