"""What an algorithm is for the backends: a worker program, a gate, a rule, and facts. They are said in `algorithms`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from torch import Tensor

from asgd_lab.protocol import programs, rules
from asgd_lab.protocol.effects import Program
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.replica import AnchoredDelta, Delta, GradientSum, Replica, Vectors
from asgd_lab.protocol.rules import Kind, Rule

Momentum = Literal["keep", "reset"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What the backends need: the worker's program, and what the server is made of."""

    name: str
    program: Callable[[Replica], Program]
    gate: Gate
    rule: Rule
    n_fetch: int  # minibatches a fetch grants
    pushes: Kind
    vectors: Callable[[Tensor, Tensor, Tensor], Vectors]  # (params, center, update) -> how a replica makes an update
    momentum_at_fetch: Momentum = "keep"
    depth: int = 1  # pushes a worker may have under way, each from a buffer of its own
    shared: bool = False  # do all workers train in one vector, which the server only counts the rounds of?
    overlaps: bool = False  # may an answer have come before the program waits for it?

    def __post_init__(self) -> None:
        rules.check(self.rule, self.pushes, self.gate.collects)


class Stated(Protocol):
    """What a scenario states of an algorithm, as far as `blocking` needs it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def n_fetch(self) -> int:
        """Local minibatches between two fetches."""

    @property
    def n_push(self) -> int:
        """Local minibatches between two pushes."""

    @property
    def push(self) -> Kind:
        """What a push carries."""

    @property
    def momentum_at_fetch(self) -> Momentum:
        """What a fetch does to the local optimizer's state."""


def blocking(stated: Stated, gate: Gate, rule: Rule) -> Algorithm:
    """The algorithm whose workers wait for each fetch and each push: of one rhythm, or of two."""
    coupled = stated.n_fetch == stated.n_push
    by_delta = Delta if coupled else AnchoredDelta
    return Algorithm(
        name=stated.name,
        program=programs.coupled if coupled else partial(programs.uncoupled, n_push=stated.n_push),
        gate=gate,
        rule=rule,
        n_fetch=stated.n_fetch,
        pushes=stated.push,
        vectors=by_delta if stated.push == "delta" else GradientSum,
        momentum_at_fetch=stated.momentum_at_fetch,
    )
