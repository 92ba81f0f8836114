"""The links of server rules as a scenario states them: keys, input and output kinds. `protocol.rules` has the formulas.

The protocol imports torch, and a scenario is read without torch: a link imports the protocol when it is built.
"""

from __future__ import annotations

import contextlib
import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from asgd_lab.choices import Choice, Mappings, Unread, is_ours
from asgd_lab.configuration import BareName, Positive, Text, not_finite, refuse
from asgd_lab.errors import ScenarioError
from asgd_lab.task_keys.optimizers import Optimizer
from asgd_lab.trust import refusal
from asgd_lab.users_errors import blaming, fail

if TYPE_CHECKING:
    from asgd_lab.protocol.rules import Rule

Push = Literal["delta", "gradient"]
Passed = Literal["delta", "gradient", "any"]
Made = Literal["delta", "gradient", "any", "parameters"]


class Link(Choice):
    """One link of a server's rule. Each subclass has its keys, states its input and output, and builds the link."""

    registry = "rules"
    takes: ClassVar[Passed] = "any"
    """Its input: a delta (a step to be added), a gradient, or any of the two, and then its output is the same."""
    makes: ClassVar[Made] = "any"
    """One of those, or the new parameters themselves: then it is the last link."""
    averages_round: ClassVar[bool] = False
    """Whether it divides by the number of pushes in the version."""
    is_plain: ClassVar[bool] = False
    """Whether valid keys are all that it needs: it can be built with any, and needs no worker's center."""
    adds_up: ClassVar[bool] = False
    """Whether two pushes change the parameters as their sum does: it is linear and keeps no state."""

    @abstractmethod
    def build(self, workers: int) -> Rule:
        """The link as the server applies it, for a run of so many workers."""


class Add(Link):
    """Adds a delta to the parameters as it is."""

    takes = makes = "delta"
    is_plain = adds_up = True

    name: Literal["add"]
    """This rule's name."""

    def build(self, workers: int) -> Rule:
        from asgd_lab.protocol import rules

        return rules.add()


class Mean(Link):
    """Averages the updates of a version; only as the first link, and only where versions are made of several."""

    averages_round = True
    is_plain = True

    name: Literal["mean"]
    """This rule's name."""

    def build(self, workers: int) -> Rule:
        from asgd_lab.protocol import rules

        return rules.mean()


class Scale(Link):
    """Multiplies an update by a constant."""

    is_plain = adds_up = True

    name: Literal["scale"]
    """This rule's name."""
    factor: Positive | None = None
    """The constant, no unit; null: 1 / workers."""

    def build(self, workers: int) -> Rule:
        from asgd_lab.protocol import rules

        return rules.scale(1.0 / workers if self.factor is None else self.factor)


class ServerSgd(Link):
    """Gradient descent at the server: takes a gradient, makes the delta -lr times it."""

    takes, makes = "gradient", "delta"
    is_plain = adds_up = True

    name: Literal["sgd"]
    """This rule's name."""
    lr: Positive
    """The server's learning rate."""

    def build(self, workers: int) -> Rule:
        from asgd_lab.protocol import rules

        return rules.sgd(self.lr)


class Momentum(Link):
    """Replaces an update by its exponentially decaying sum over the versions."""

    is_plain = True

    name: Literal["momentum"]
    """This rule's name."""
    beta: Annotated[float, Field(ge=0, lt=1)]
    """The share of the sum that is kept from one version to the next."""
    nesterov: bool = False
    """Whether to look one step ahead, as in Nesterov's method."""

    def build(self, workers: int) -> Rule:
        from asgd_lab.protocol import rules

        return rules.momentum(self.beta, self.nesterov)


class Adagrad(Link):
    """Adagrad at the server: takes a gradient, makes a delta that shrinks with the sum of squared gradients."""

    takes, makes = "gradient", "delta"
    is_plain = True

    name: Literal["adagrad"]
    """This rule's name."""
    lr: Positive
    """The server's learning rate."""
    eps: Positive = 1e-10
    """Added to the root of the sum of squares."""

    def build(self, workers: int) -> Rule:
        from asgd_lab.protocol import rules

        return rules.adagrad(self.lr, self.eps)


class Adadelta(Link):
    """Adadelta at the server (Zeiler 2012): takes a gradient, makes a delta with units of its own."""

    takes, makes = "gradient", "delta"
    is_plain = True

    name: Literal["adadelta"]
    """This rule's name."""
    lr: Positive = 1.0
    """The server's learning rate."""
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The share of the running averages of squares that is kept from one version to the next."""
    eps: Positive = 1e-6
    """Added to both running averages before the root."""

    def build(self, workers: int) -> Rule:
        from asgd_lab.protocol import rules

        return rules.adadelta(self.lr, self.rho, self.eps)


class OuterOptimizer(Link):
    """Steps with an optimizer of torch.optim at the server, as DiLoCo does; only as the last link."""

    model_config = ConfigDict(extra="allow")
    makes = "parameters"

    name: Literal["optimizer"]
    """This rule's name."""
    optimizer: Text
    """A class of torch.optim, e.g. SGD or AdamW, or package.module:Class; other keys are its keywords."""
    of: Push = "delta"
    """Its input: a delta, whose sign it turns, or a gradient."""

    @model_validator(mode="after")
    def _finite(self) -> Self:
        refuse(not_finite(self.options))
        return self

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def build(self, workers: int) -> Rule:
        """See `protocol.outer.stepping`; with the optimizer's fused step where there is one."""
        from asgd_lab.protocol import outer
        from asgd_lab.tasks.optimizers import optimizer

        options = self.options
        try:
            made = optimizer(Optimizer.model_validate({**options, "name": self.optimizer}))
            if "fused" not in options:
                with contextlib.suppress(ScenarioError):
                    made = optimizer(Optimizer.model_validate({**options, "name": self.optimizer, "fused": True}))
            return outer.stepping(made, self.of)
        except ScenarioError as error:  # without its key, which is a task's
            raise ScenarioError(str(error)) from error


class UnreadLink(Link, Unread):
    """A link whose code may not be imported."""

    def build(self, workers: int) -> Rule:
        """Raise the error that the code is not trusted."""
        raise ScenarioError.at("algorithm.rule", refusal([("algorithm.rule", self.name)]))


RULES = Mappings("rules", Link, (Add, Mean, Scale, ServerSgd, Momentum, Adagrad, Adadelta, OuterOptimizer), UnreadLink)
AnyLink = Annotated[Link, RULES, BareName()]


def chained(rule: Sequence[Link], workers: int) -> Rule:
    """The links as one rule."""
    from asgd_lab.protocol import rules

    built = []
    for index, link in enumerate(rule):
        with blaming(link, f"algorithm.rule.{index}"):
            one = link.build(workers)
            if not is_ours(link):
                one = _of_somebody(link, one)
        built.append(one)
    try:
        return rules.chain(*built)
    except ScenarioError as error:
        raise ScenarioError.at("algorithm.rule", str(error)) from error


def _of_somebody(link: Link, built: Any) -> Rule:
    """A user's link, checked against its class's facts; an error in its step fails the run in one line."""
    from asgd_lab.protocol.rules import Rule

    if not isinstance(built, Rule):
        raise TypeError(f"build must return a protocol.rules.Rule, not a {type(built).__name__}")
    said, does = (link.takes, link.makes, link.averages_round), (built.eats, built.yields, built.averages_round)
    if said != does:
        raise ValueError(f"its class says takes, makes and averages_round are {said}, and its rule {does}")

    def step(*arguments: Any) -> Any:
        try:
            return built.step(*arguments)
        except Exception as error:
            fail(f"the rule {link.name}", error)

    return dataclasses.replace(built, step=step)


def contradictions(rule: Sequence[Link], push: Push, *, collects: bool) -> Iterator[tuple[str, str]]:
    """Faults of a chain of links for pushes of this kind, by key below the algorithm."""
    if not rule or any(isinstance(link, Unread) for link in rule):
        return  # nothing is known
    kind: Any = push
    made_by = ""
    for index, link in enumerate(rule):
        key = f"rule.{index}"
        if link.averages_round and not collects:
            yield key, f"{link.name!r} averages a collected round and this algorithm collects none; use 'scale'"
        if link.averages_round and collects and index > 0:
            yield key, f"{link.name!r} must be the first link: it averages the round before any other link sees it"
        if link.takes == "delta" and kind == "gradient":
            message = f"{link.name!r} takes a delta but is fed gradients; set push: delta, or use {_MAKING_DELTAS}"
            yield key, message
            return
        if link.takes == "gradient" and kind == "delta":
            if made_by:
                yield key, f"{link.name!r} takes a gradient but {made_by!r} made a delta of it; keep one of the two"
            else:
                yield key, f"{link.name!r} takes a gradient but is fed deltas; set push: gradient"
            return
        if link.makes == "delta" and kind == "gradient":
            made_by = link.name
        kind = kind if link.makes == "any" else link.makes
    if kind == "gradient":
        message = f"must end in a delta but only passes gradients on; set push: delta, or add {_MAKING_DELTAS}"
        yield "rule", message


_MAKING_DELTAS = "sgd, adagrad or adadelta"
