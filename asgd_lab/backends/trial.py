"""A trial of a user's algorithm before a run begins: a few rounds inline, on a small task instead of the scenario's.

Errors of its program, gate or rule, and messages that the server or the client refuse, are reported in one line. The
trial does not detect an endless wait: the algorithm may need more workers, more rounds or a clock.
"""

from __future__ import annotations

from asgd_lab import choices
from asgd_lab.backends.build import build_algorithm, check_wake, clock_doubts, hold_doubts
from asgd_lab.backends.inline import Inline
from asgd_lab.backends.inline_observers import Observer
from asgd_lab.backends.settings import settled
from asgd_lab.errors import ProtocolError, RunFailed, ScenarioError
from asgd_lab.protocol.members import Budget
from asgd_lab.protocol.messages import DROPPED, Ack, Answer
from asgd_lab.protocol.versions import IN_VAIN
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.tasks import Quadratic
from asgd_lab.task_keys.optimizers import Optimizer
from asgd_lab.tasks.base import one_line

_WORKERS = 16  # at most
_MINIBATCHES = 16  # per worker, on average
_TURNS = 1000  # of all workers together: a program may continue after it should have left


class _Pushes(Observer):
    """Counts the pushes of a trial by their end."""

    applied = dropped = 0

    def answered(self, worker: int, answer: Answer) -> None:
        if isinstance(answer, Ack):
            self.applied += answer.version > 0
            self.dropped += answer.version == DROPPED


@settled()
def check_algorithm(scenario: Scenario) -> list[str]:
    """A `ScenarioError` if a user's algorithm or rule fails; else warnings. Those of this package are not tried."""
    if not choices.brought(scenario.algorithm):
        return []
    algorithm, pushes = build_algorithm(scenario), _Pushes()
    doubts = [*clock_doubts(scenario, algorithm), *hold_doubts(algorithm)]
    workers = min(scenario.workers, _WORKERS)
    optimizer = Optimizer.model_validate({"name": "SGD", "lr": 0.01})
    task = Quadratic(name="quadratic", curvature=[1.0] * 4, noise=1.0, optimizer=optimizer).make(0, {}, workers)
    try:
        lab = Inline(task, algorithm, Budget(minibatches=_MINIBATCHES * workers), workers, observer=pushes)
        for turn in range(_TURNS):
            if not lab.ready:
                break
            lab.turn(sorted(lab.ready)[turn % len(lab.ready)])
            check_wake(scenario, lab.server)
    except ScenarioError:
        raise
    except Exception as error:
        said = str(error) if isinstance(error, ProtocolError | RunFailed) else one_line(error)
        raise ScenarioError.at("algorithm.name", f"{algorithm.name} fails when it is tried: {said}") from error
    if pushes.dropped and not pushes.applied and not algorithm.gate.needs_clock:
        dropped = f"has dropped all {pushes.dropped:,} pushes of a trial"
        most = IN_VAIN * max(10, scenario.workers)
        doubts.append(f"algorithm.name: the gate of {algorithm.name} {dropped}; a run fails after {most:,} on end")
    return doubts
