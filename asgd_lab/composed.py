"""Algorithms of a Python program: a worker's program, a gate and a rule, without a class for their keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

import asgd_lab.algorithms.rules as rules
from asgd_lab.algorithms.base import Configuration, Links, Ruled
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol import gates
from asgd_lab.protocol.algorithms import Algorithm as Sentence
from asgd_lab.protocol.algorithms import blocking
from asgd_lab.protocol.effects import Program
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.rules import Rule
from asgd_lab.protocol.vectors import AnchoredDelta

AnyProgram = Callable[[Replica], Program]
AnyGate = gates.Gate | type[gates.Gate]


class Algorithm(dict[str, Any]):
    """An algorithm for a scenario's key `algorithm`, a mapping as in a file: `asgd_lab.extending` has what it is of.

    >>> import asgd_lab
    >>> from asgd_lab import extending as lab
    >>> class Fresh(lab.Gate):
    ...     most: int
    ...     def on_push(self, push: lab.PushRequest, server: lab.View) -> lab.Verdict:
    ...         return lab.APPLY if server.version - push.base <= self.most else lab.drop()
    >>> bowl = {
    ...     "name": "fresh",
    ...     "task": {"name": "quadratic", "curvature": [1.0, 4.0]},
    ...     "algorithm": asgd_lab.Algorithm(gate=Fresh(most=1), n_sync=2),
    ...     "workers": 4,
    ...     "budget": {"minibatches": 40},
    ...     "backend": "sim",
    ...     "hardware": {"compute": {"step_s": 0.01}},
    ... }
    >>> asgd_lab.run(bowl).summary["staleness"]["max"]
    1

    `program` is a generator function of a replica; None: fetch, n_sync minibatches, push, over again. It waits for each
    fetch and push that it yields, and there may be several pushes for a fetch. `gate` is a gate or its class; None: no
    worker waits. `rule` is a `Rule`, or a link or a list of them as in a file, whose items may also be a `Rule`; None:
    a factor 1 / workers, or the mean where the gate collects pushes. Other keys are those of `asgd`: push, codec,
    momentum_at_fetch. `ScenarioError` if program or gate are of another kind.
    """

    def __init__(
        self, *, program: AnyProgram | None = None, gate: AnyGate | None = None,
        rule: Any = None, n_sync: int = 1, **keys: Any,
    ) -> None:  # fmt: skip
        if program is not None and not callable(program):
            raise ScenarioError(f"program: must be a generator function of a replica; got a {type(program).__name__}")
        super().__init__(name=_configuration(program, _made(gate)), n_sync=n_sync, **keys)
        if rule is not None:
            links = rule if isinstance(rule, list | tuple) else [rule]
            self["rule"] = [{"name": _link(each)} if isinstance(each, Rule) else each for each in links]


def _made(gate: object) -> gates.Gate:
    """The gate, or one of that class."""
    if gate is None:
        return gates.asynchronous()
    if isinstance(gate, gates.Gate):
        return gate
    if not isinstance(gate, type) or not issubclass(gate, gates.Gate):
        raise ScenarioError(f"gate: must be a gate or its class; got a {type(gate).__name__}")
    try:
        return gate()
    except TypeError as error:
        raise ScenarioError(f"gate: {error}; give an instance, as in {gate.__name__}(...)") from error


def _configuration(program: AnyProgram | None, gate: gates.Gate) -> type[Configuration]:
    first: rules.Link = rules.Mean(name="mean") if gate.collects else rules.Scale(name="scale")

    class Composed(Ruled):
        """An algorithm of a Python program."""

        collects: ClassVar[bool] = gate.collects

        rule: Links = Field(default=[first])

        def sentence(self, rule: Rule) -> Sentence:
            said = blocking(self, gate, rule)
            if program is None:
                return said
            vectors = AnchoredDelta if self.push == "delta" else said.vectors  # also for several pushes a fetch
            return replace(said, program=program, vectors=vectors)

    called = type(gate).__name__ if program is None else getattr(program, "__name__", type(program).__name__)
    Composed.__name__ = Composed.__qualname__ = called
    return Composed


def _link(rule: Rule) -> type[rules.Link]:
    class Composed(rules.Link):
        """A rule of a Python program."""

        takes: ClassVar[Any] = rule.eats
        makes: ClassVar[Any] = rule.yields
        averages_round: ClassVar[bool] = rule.averages_round

        def build(self, workers: int) -> Rule:
            return rule

    Composed.__name__ = Composed.__qualname__ = rule.name
    return Composed
