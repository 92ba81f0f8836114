"""An algorithm around one of ours, one with a program of its own, a rule, a codec, a task, a backend: from outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from asgd_lab.algorithms import Apart, Asgd, Link, Together
from asgd_lab.algorithms.base import Links, Push
from asgd_lab.algorithms.codecs import Cast, Compression
from asgd_lab.algorithms.rules import Scale
from asgd_lab.backends import inline
from asgd_lab.backends.outcome import Outcome, Watch
from asgd_lab.configuration import Count, Positive
from asgd_lab.protocol import effects, gates
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.codecs import Codec
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.rules import Rule
from asgd_lab.protocol.vectors import AnchoredDelta
from asgd_lab.record.run import RunDirectory
from asgd_lab.scenario import Scenario
from asgd_lab.scenario.executions import InlineExecution
from asgd_lab.scenario.tasks import Learned, Quadratic
from asgd_lab.task_keys.optimizers import SGD, Optimizer
from asgd_lab.tasks.base import Data, Task


class Patient(Apart):
    """As asgd; a worker lets `patience` minibatches of its first round go by in a round of their own."""

    one_server = False

    patience: Count = 1
    """Minibatches."""

    def sentence(self, rule: Rule) -> Algorithm:
        """Asgd's, with a program around its."""
        keys = {"name": "asgd", "n_fetch": self.n_fetch, "n_push": self.n_push}
        asgd = Asgd.model_validate(keys).sentence(rule)

        def program(replica: Replica) -> effects.Program:
            for effect in asgd.program(replica):
                if isinstance(effect, effects.Train) and not replica.minibatches:
                    assert replica.steps >= 1
                yield effect

        return dataclasses.replace(asgd, name=self.name, program=program)


class Growing(Together):
    """Pushes after 1, 2, 4, ... minibatches, at most n_sync, and fetches after n_sync of them."""

    rule: Links = [Scale(name="scale")]  # noqa: RUF012
    push: Push = "delta"

    def sentence(self, rule: Rule) -> Algorithm:
        """A program over the effects there are."""

        def program(replica: Replica) -> effects.Program:
            fetch, train, push = effects.Fetch(replica), effects.Train(replica), effects.Push(replica)
            stretch = 1
            while True:
                yield fetch
                if not replica.granted:
                    return
                replica.adopt()
                while replica.granted:
                    replica.steps = min(stretch, replica.granted)
                    yield train
                    replica.measure()
                    yield push
                stretch = min(2 * stretch, self.n_sync)

        return Algorithm(self.name, program, gates.asynchronous(), rule, self.n_sync, self.push, AnchoredDelta)


class Sign(Link):
    """Lr times the sign of each element."""

    lr: Positive
    """The length of a step."""

    def build(self, workers: int) -> Rule:
        """The sign costs one pass."""

        def step(update: Any, count: int, state: Any, fresh: Any, workspace: Any) -> Any:
            vector, alpha = update
            out = torch.sign(vector, out=workspace.other_than(vector))
            return out, self.lr if alpha > 0 else -self.lr

        return Rule(self.name, "any", "any", 0, step)


class Slope(Learned):
    """A bowl of one dimension."""

    slope: Positive
    """Its curvature."""
    optimizer: Optimizer = SGD
    """The optimizer of the local steps."""

    def make(self, seed: int, data: Data, workers: int) -> Task:
        """One of ours."""
        keys = {"name": "quadratic", "curvature": [self.slope], "optimizer": self.optimizer}
        return Quadratic.model_validate(keys).make(seed, data, workers)


class Aside(InlineExecution):
    """Inline, and a file that says so."""

    runs = f"{__name__}:aside"

    def refuses(self, scenario: Any) -> Iterator[tuple[str, str]]:
        """What inline refuses, and crowds."""
        yield from super().refuses(scenario)
        if scenario.workers > 3:
            yield "workers", f"must be at most 3 with backend {self.name}; got {scenario.workers}"


def aside(scenario: Scenario, record: RunDirectory, watch: Watch | None = None) -> Outcome:
    """Carry it out."""
    Path("aside").touch()
    return inline.run(scenario, record, watch)


class Rounded(Compression):
    """Sends updates in fewer bytes."""

    dtype: Literal["bfloat16", "float16"] = "float16"
    """The type."""

    def build(self) -> Codec:
        """One of ours."""
        return Cast(name="cast", dtype=self.dtype).build()
