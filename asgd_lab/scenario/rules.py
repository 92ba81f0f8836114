"""The server's update rules: what each takes and makes (a delta to be added, or a gradient), and what chains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from asgd_lab.scenario.base import BareName, Part, Positive

Push = Literal["delta", "gradient"]


class Add(Part):
    """Adds a delta to the parameters as it is."""

    name: Literal["add"]
    """This rule's name."""


class Mean(Part):
    """Averages the updates of a collected round; only with sync_sgd, and only as the first link."""

    name: Literal["mean"]
    """This rule's name."""


class Scale(Part):
    """Multiplies an update by a constant."""

    name: Literal["scale"]
    """This rule's name."""
    factor: Positive | None = None
    """The constant, no unit; null: 1 / workers."""


class ServerSgd(Part):
    """Gradient descent at the server: takes a gradient, makes the delta -lr times it."""

    name: Literal["sgd"]
    """This rule's name."""
    lr: Positive
    """The server's learning rate."""


class Momentum(Part):
    """Replaces an update by its exponentially decaying sum over the versions."""

    name: Literal["momentum"]
    """This rule's name."""
    beta: Annotated[float, Field(ge=0, lt=1)]
    """How much of the sum is kept from one version to the next."""
    nesterov: bool = False
    """Whether to look one step ahead, as Nesterov's method does."""


class Adagrad(Part):
    """Adagrad at the server: takes a gradient, makes a delta that shrinks with the sum of squared gradients."""

    name: Literal["adagrad"]
    """This rule's name."""
    lr: Positive
    """The server's learning rate."""
    eps: Positive = 1e-10
    """Added to the root of the sum of squares."""


class Adadelta(Part):
    """Adadelta at the server (Zeiler 2012): takes a gradient, makes a delta with units of its own."""

    name: Literal["adadelta"]
    """This rule's name."""
    lr: Positive = 1.0
    """The server's learning rate."""
    rho: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """How much of the running averages of squares is kept from one version to the next."""
    eps: Positive = 1e-6
    """Added to both running averages before the root."""


Link = Annotated[
    Add | Mean | Scale | ServerSgd | Momentum | Adagrad | Adadelta, Field(discriminator="name"), BareName()
]

_TAKES_A_DELTA = Add
_MAKES_A_DELTA = ServerSgd | Adagrad | Adadelta  # and takes a gradient; all others take either and give back its like


def contradictions(rule: Sequence[Link], push: Push, *, collects: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with a chain of links that is fed with pushes of this kind, by key below the algorithm."""
    made_by = ""
    kind = push
    for index, link in enumerate(rule):
        key = f"rule.{index}"
        if isinstance(link, Mean) and not collects:
            yield key, "'mean' averages a collected round and this algorithm collects none; use 'scale'"
        if isinstance(link, Mean) and collects and index > 0:
            yield key, "'mean' must be the first link: it averages the round before any other link sees it"
        if isinstance(link, _TAKES_A_DELTA) and kind == "gradient":
            yield key, "'add' takes a delta but is fed gradients; set push: delta, or use sgd, adagrad or adadelta"
            return
        if isinstance(link, _MAKES_A_DELTA):
            if made_by:
                yield key, f"{link.name!r} takes a gradient but {made_by!r} made a delta of it; keep one of the two"
                return
            if kind == "delta":
                yield key, f"{link.name!r} takes a gradient but is fed deltas; set push: gradient"
                return
            kind, made_by = "delta", link.name
    if kind == "gradient":
        yield (
            "rule",
            "must end in a delta but only passes gradients on; set push: delta, or add sgd, adagrad or adadelta",
        )
