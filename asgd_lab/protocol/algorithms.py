"""Named algorithms: each is a sentence over a worker program, a gate and a rule.

To add one, write the sentence here (and its scenario in `asgd_lab/scenario`); a new program, gate or rule goes into the
module of that name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from asgd_lab.protocol import gates, programs, rules
from asgd_lab.protocol.effects import Program
from asgd_lab.protocol.gates import Gate
from asgd_lab.protocol.replica import AnchoredDelta, Delta, GradientSum, Replica, Shared, Vectors
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

    def __post_init__(self) -> None:
        rules.check(self.rule, self.pushes, self.gate.collects)


def asgd(
    n_fetch: int, n_push: int, rule: Rule, pushes: Kind = "delta", momentum_at_fetch: Momentum = "keep"
) -> Algorithm:
    """Asynchronous SGD (Dean et al. 2012; Paine et al. 2013): fetch every n_fetch minibatches, push every n_push."""
    return _algorithm("asgd", gates.asynchronous(), n_fetch, n_push, rule, pushes, momentum_at_fetch)


def downpour(
    n_fetch: int, n_push: int, depth: int, rule: Rule, pushes: Kind = "delta", momentum_at_fetch: Momentum = "keep"
) -> Algorithm:
    """Downpour SGD as DistBelief ran it (Dean et al. 2012): asgd whose fetches and pushes do not block."""
    return Algorithm(
        name="downpour",
        program=partial(programs.overlapped, n_push=n_push, depth=depth),
        gate=gates.asynchronous(),
        rule=rule,
        n_fetch=n_fetch,
        pushes=pushes,
        vectors=AnchoredDelta if pushes == "delta" else GradientSum,  # the center is let go while it is worked on
        momentum_at_fetch=momentum_at_fetch,
        depth=depth,
    )


def ssp(n_sync: int, bound: int, rule: Rule, pushes: Kind = "delta", momentum_at_fetch: Momentum = "keep") -> Algorithm:
    """Stale synchronous parallel (Ho et al. 2013): A-SGD whose fastest worker waits when `bound` rounds ahead."""
    return _algorithm("ssp", gates.bounded_staleness(bound), n_sync, n_sync, rule, pushes, momentum_at_fetch)


def sync_sgd(n_sync: int, rule: Rule, pushes: Kind = "delta", momentum_at_fetch: Momentum = "keep") -> Algorithm:
    """Lock-step: all push, their updates make the next version together, all go on from it."""
    return _algorithm("sync_sgd", gates.lock_step(), n_sync, n_sync, rule, pushes, momentum_at_fetch)


def hogwild(n_sync: int, momentum_at_fetch: Momentum = "keep") -> Algorithm:
    """Hogwild (Niu et al. 2011): local steps straight in the shared vector, without a lock and without a copy.

    Rounds of n_sync minibatches are counted as if they were pushed: the same budget, membership and staleness.
    """
    return Algorithm(
        "hogwild", programs.coupled, gates.asynchronous(), rules.add(), n_sync, "delta", Shared,
        momentum_at_fetch, shared=True,
    )  # fmt: skip


def sgd(n_sync: int = 1, momentum_at_fetch: Momentum = "keep") -> Algorithm:
    """Plain SGD: A-SGD with one worker and whole deltas, which is SGD to rounding for any n_sync."""
    return _algorithm("sgd", gates.asynchronous(), n_sync, n_sync, rules.add(), "delta", momentum_at_fetch)


def _algorithm(
    name: str, gate: Gate, n_fetch: int, n_push: int, rule: Rule, pushes: Kind, momentum_at_fetch: Momentum
) -> Algorithm:
    coupled = n_fetch == n_push
    by_delta = Delta if coupled else AnchoredDelta
    return Algorithm(
        name=name,
        program=programs.coupled if coupled else partial(programs.uncoupled, n_push=n_push),
        gate=gate,
        rule=rule,
        n_fetch=n_fetch,
        pushes=pushes,
        vectors=by_delta if pushes == "delta" else GradientSum,
        momentum_at_fetch=momentum_at_fetch,
    )
