"""An algorithm as the backends run it: a worker program, a gate, a rule, and facts. `algorithms` builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.protocol import gates, programs, rules
from asgd_lab.protocol.codecs import Codec
from asgd_lab.protocol.effects import Program
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.replica import Replica
from asgd_lab.protocol.rules import Kind, Rule
from asgd_lab.protocol.vectors import AnchoredDelta, Delta, GradientSum, Vectors

Momentum = Literal["keep", "reset"]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """The worker's program, the server's gate and rule, and facts about them."""

    name: str
    program: Callable[[Replica], Program]
    gate: Gate
    rule: Rule
    n_fetch: int  # minibatches a fetch grants
    pushes: Kind
    vectors: Callable[[Tensor, Tensor, Tensor], Vectors]  # (params, center, update) -> how a replica makes an update
    momentum_at_fetch: Momentum = "keep"
    depth: int = 1  # pushes that a worker may have in flight, each from a buffer of its own
    shared: bool = False  # do all workers train in one vector, so that the server only counts their rounds?
    overlaps: bool = False  # may an answer arrive before the program waits for it?
    codec: Codec | None = None  # between an update and its wire form
    parts: int = 0  # of the parameters, with versions and messages of their own; 0: the vector is undivided
    apart: bool = False  # are the parts independent servers, so that every push and fetch is of all of them?

    def __post_init__(self) -> None:
        gates.check(self.gate)
        rules.check(self.rule, self.pushes, self.gate.collects)
        if self.depth > 1 and self.gate.collects and not self.gate.keeps:
            message = f"a worker may have {self.depth} pushes in flight, and a gate holds one of a worker at most"
            raise ScenarioError(f"{message}; let it keep pushes, or give depth 1")


class Stated(Protocol):
    """The part of a scenario's algorithm that `blocking` needs."""

    @property
    def name(self) -> str:
        """The name in a scenario."""

    @property
    def n_fetch(self) -> int:
        """Local minibatches between two fetches."""

    @property
    def n_push(self) -> int:
        """Local minibatches between two pushes."""

    @property
    def push(self) -> Kind:
        """The content of a push."""

    @property
    def momentum_at_fetch(self) -> Momentum:
        """The fate of the local optimizer's state at a fetch."""


def blocking(stated: Stated, gate: Gate, rule: Rule) -> Algorithm:
    """An algorithm whose workers wait for each fetch and each push, with one rhythm or two."""
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
