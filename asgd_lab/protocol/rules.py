"""Server rules: how an arriving update becomes a step of the server's parameters, elementwise and never in place.

A rule turns an update into a step. Updates travel as a pair (vector, alpha) that stands for alpha * vector, so scalings
cost no pass over memory; the server does the last pass, `out = params + alpha * vector`. State is a tuple of tensors; a
step reads `state` and writes `fresh`, and the server swaps the two when the step is committed, so a process that dies
halfway tears nothing. P is the length of the flat vector.

A rule states its input: a "delta" (a step to be added), a "gradient", or "any" of the two, and then its output is the
same. A rule that yields "parameters" writes the new parameters to `workspace.out` itself.

A rule acts on the merged update, or `on_each` push before that: with state of the push's worker, and its staleness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.messages import PushRequest

Kind = Literal["delta", "gradient"]
Passed = Literal["delta", "gradient", "any"]
Made = Literal["delta", "gradient", "any", "parameters"]
State = Sequence[Tensor]
Scaled = tuple[Tensor, float]  # (vector, alpha): the update alpha * vector


class Workspace:
    """Two vectors of length P in which a rule may build its step: the output, and one scratch made when needed."""

    __slots__ = ("_scratch", "out")

    def __init__(self) -> None:
        self.out = torch.empty(0)
        self._scratch: Tensor | None = None

    def scratch(self) -> Tensor:
        """(P,) a second vector beside `out`, made at its first use."""
        if self._scratch is None or self._scratch.numel() != self.out.numel():
            self._scratch = torch.empty_like(self.out)
        return self._scratch

    def other_than(self, vector: Tensor) -> Tensor:
        """A vector to write to that is not `vector`."""
        return self.out if vector is not self.out else self.scratch()


class Context(NamedTuple):
    """The step that a rule takes part in."""

    version: int  # the newest; the step makes the next
    pushes: Sequence[PushRequest]  # the summands of the update, in the order of workers; on each push: that one alone
    current: Tensor  # (P,) the newest version; read only
    center: Callable[[int], Tensor]  # (P,) a worker's last fetched version, for rules that need it; read only

    @property
    def staleness(self) -> int:
        """Versions made since the fetch of the oldest center that contributed to the update."""
        return self.version - min(push.base for push in self.pushes)


Step = Callable[[Scaled, Context, State, State, Workspace], Scaled]


@dataclass(frozen=True, slots=True)
class Rule:
    """One link: `step(update, context, state, fresh, workspace)` returns the transformed update.

    `update`'s vector must not be written. `state` and `fresh` hold the rule's vectors (P,) and then its scalars (0-d,
    float64), all zero at first; all of `fresh` is written. A rule `on_each` push has those of the push's worker.
    """

    name: str
    eats: Passed
    yields: Made
    states: int  # number of state vectors (P,)
    step: Step
    averages_round: bool = False
    scalars: int = 0  # number of state scalars
    on_each: bool = False
    needs_center: bool = False
    each: Rule | None = None  # of a chain: its links on each push, which come before these

    def all_states(self, workers: int) -> int:
        """The number of state vectors in a run of so many workers."""
        return self.states + (workers * self.each.states if self.each is not None else 0)

    def all_scalars(self, workers: int) -> int:
        """The number of state scalars in a run of so many workers."""
        return self.scalars + (workers * self.each.scalars if self.each is not None else 0)


def add() -> Rule:
    """Whole deltas: w <- w + d. With M workers in flight the steps add up; see `scale`."""
    return Rule("add", "delta", "delta", 0, lambda update, context, state, fresh, workspace: update)


def scale(factor: float) -> Rule:
    """u <- factor * u. Factor 1/M, with M the configured workers, is the averaging of most A-SGD systems."""
    return Rule(
        "scale", "any", "any", 0, lambda update, context, state, fresh, workspace: (update[0], update[1] * factor)
    )


def weighing(name: str, weight: Callable[[Context], float]) -> Rule:
    """u <- weight * u on each push, with a weight from its staleness, worker or minibatches."""
    return Rule(
        name, "any", "any", 0, lambda update, context, *_: (update[0], update[1] * weight(context)), on_each=True
    )


def mean() -> Rule:
    """u <- u / count: the mean over a collected round; the update is the round's sum."""
    return Rule(
        "mean",
        "any",
        "any",
        0,
        lambda update, context, state, fresh, workspace: (update[0], update[1] / len(context.pushes)),
        averages_round=True,
    )


def sgd(lr: float) -> Rule:
    """Gradient descent at the server: d = -lr * g."""
    return Rule(
        "sgd", "gradient", "delta", 0, lambda update, context, state, fresh, workspace: (update[0], -lr * update[1])
    )


def momentum(beta: float, nesterov: bool = False) -> Rule:
    """v <- beta * v + u; u <- v, or u + beta * v for Nesterov (as torch.optim.SGD with dampening 0)."""

    def step(update: Scaled, context: Context, state: State, fresh: State, workspace: Workspace) -> Scaled:
        vector, alpha = update
        velocity = torch.mul(state[0], beta, out=fresh[0]).add_(vector, alpha=alpha)
        if not nesterov:
            return velocity, 1.0
        ahead = workspace.other_than(vector)
        return torch.mul(velocity, beta, out=ahead).add_(vector, alpha=alpha), 1.0

    return Rule("momentum", "any", "any", 1, step)


def adagrad(lr: float, eps: float = 1e-10) -> Rule:
    """s <- s + g^2; d = -lr * g / (sqrt(s) + eps) (Duchi et al. 2011, as DistBelief's server used it)."""

    def step(update: Scaled, context: Context, state: State, fresh: State, workspace: Workspace) -> Scaled:
        gradient, alpha = update
        squares = torch.addcmul(state[0], gradient, gradient, value=alpha * alpha, out=fresh[0])
        delta = workspace.other_than(gradient)
        torch.sqrt(squares, out=delta).add_(eps)
        return torch.div(gradient, delta, out=delta), -lr * alpha

    return Rule("adagrad", "gradient", "delta", 1, step)


def adadelta(lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6) -> Rule:
    """d = -lr * g * RMS(earlier d) / RMS(g), both running averages of decay rho (Zeiler 2012, Algorithm 1)."""

    def step(update: Scaled, context: Context, state: State, fresh: State, workspace: Workspace) -> Scaled:
        gradient, alpha = update
        torch.mul(state[0], rho, out=fresh[0]).addcmul_(gradient, gradient, value=(1.0 - rho) * alpha * alpha)
        denominator = torch.add(fresh[0], eps, out=fresh[1])  # fresh[1] is free until the last line
        delta = workspace.other_than(gradient)
        torch.add(state[1], eps, out=delta).div_(denominator).sqrt_().mul_(gradient).mul_(-alpha)
        torch.mul(state[1], rho, out=fresh[1]).addcmul_(delta, delta, value=1.0 - rho)
        return delta, lr

    return Rule("adadelta", "gradient", "delta", 2, step)


def chain(*links: Rule) -> Rule:
    """The links one after the other, as one rule (the idea is optax's `chain`); all of them on each push, or none."""
    if not links:
        raise ScenarioError("a rule needs at least one link")
    eats: Passed = "any"
    kind: Made = "any"
    for index, link in enumerate(links):
        if link.averages_round and index:
            raise ScenarioError("mean must be the first link: it averages the pushes of a round")
        if kind == "parameters":
            raise ScenarioError(f"{links[index - 1].name} must be the last link: it makes the parameters themselves")
        if link.eats != "any":
            if kind not in ("any", link.eats):
                raise ScenarioError(f"{link.name} eats a {link.eats}, but {links[index - 1].name} yields a {kind}")
            eats = link.eats if kind == "any" else eats
        kind = kind if link.yields == "any" else link.yields
    each = [link.each or link for link in links if link.on_each or link.each]
    merged = [link for link in links if not link.on_each]
    if [link for link in links if link.on_each] != list(links[: len(links) - len(merged)]):
        raise ScenarioError("links on each push must come before those on what is merged")
    states, scalars, step = _steps(merged)
    return Rule(
        " > ".join(link.name for link in links), eats, kind, states, step, links[0].averages_round, scalars,
        needs_center=any(link.needs_center for link in links), each=_each(each) if each else None,
    )  # fmt: skip


def _each(links: Sequence[Rule]) -> Rule:
    states, scalars, step = _steps(links)
    name = " > ".join(link.name for link in links)
    return Rule(name, links[0].eats, links[-1].yields, states, step, scalars=scalars, on_each=True)


def _steps(links: Sequence[Rule]) -> tuple[int, int, Step]:
    """The numbers of the links' state vectors and scalars, and their steps as one function."""
    vectors = [sum(link.states for link in links[:i]) for i in range(len(links) + 1)]
    scalars = [vectors[-1] + sum(link.scalars for link in links[:i]) for i in range(len(links) + 1)]
    spans = [
        (link.step, slice(vectors[i], vectors[i + 1]), slice(scalars[i], scalars[i + 1]) if link.scalars else None)
        for i, link in enumerate(links)
    ]

    def step(update: Scaled, context: Context, state: State, fresh: State, workspace: Workspace) -> Scaled:
        for apply, span, more in spans:
            if more is None:
                update = apply(update, context, state[span], fresh[span], workspace)
            else:
                own, new = (*state[span], *state[more]), (*fresh[span], *fresh[more])
                update = apply(update, context, own, new, workspace)
        return update

    return vectors[-1], scalars[-1] - vectors[-1], step


def check(rule: Rule, pushed: Kind, collects: bool) -> None:
    """A ScenarioError if the rule does not accept this push, yields a gradient, or averages rounds without a round."""
    if rule.averages_round and not collects:
        raise ScenarioError("mean averages a collected round, and this algorithm collects none; use scale")
    if rule.eats not in ("any", pushed):
        raise ScenarioError(f"{rule.name} eats a {rule.eats}, but the workers push a {pushed}")
    if (pushed if rule.yields == "any" else rule.yields) == "gradient":
        raise ScenarioError(f"{rule.name} yields a gradient; end it with sgd, adagrad or adadelta, or push deltas")
