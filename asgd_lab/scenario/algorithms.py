"""The algorithms a scenario can name; each has name, n_fetch, n_push, rule, push and momentum_at_fetch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from asgd_lab.scenario import rules
from asgd_lab.scenario.base import Count, Part, refuse
from asgd_lab.scenario.rules import Link

Rule = Annotated[
    list[Link],
    Field(
        min_length=1,
        description="How the server makes an update a step: links applied in this order, each a mapping with a name, "
        "or the name alone.",
        examples=[["scale"], [{"name": "scale", "factor": 0.5}, {"name": "momentum", "beta": 0.9}]],
    ),
]
Push = Annotated[
    rules.Push,
    Field(
        description="What a push carries: delta (the change of the parameters) or gradient (the sum over its "
        "minibatches)."
    ),
]
MomentumAtFetch = Annotated[
    Literal["keep", "reset"],
    Field(description="What a fetch does to the state of the local optimizer: keep it, or reset it."),
]
NSync = Annotated[Count, Field(description="Local minibatches between two synchronisations.")]


class _Apart(Part):
    """What algorithms share that may fetch and push in different rhythms."""

    name: str
    """This algorithm's name."""
    n_sync: Count | None = None
    """Local minibatches between two synchronisations (a push and a fetch); instead of n_fetch and n_push."""
    n_fetch: Count = Field(default_factory=lambda known: known["n_sync"])
    """Local minibatches between two fetches; together with n_push, instead of n_sync."""
    n_push: Count = Field(default_factory=lambda known: known["n_sync"])
    """Local minibatches between two pushes; together with n_fetch, instead of n_sync."""
    rule: Rule = Field(default=[rules.Scale(name="scale")])
    push: Push = "delta"
    momentum_at_fetch: MomentumAtFetch = "keep"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse((*self._rhythm(), *rules.contradictions(self.rule, self.push, collects=False)))
        return self

    def _rhythm(self) -> Iterator[tuple[str, str]]:
        given = [key for key in ("n_fetch", "n_push") if key in self.model_fields_set]
        if self.n_sync is not None:
            for key in given:
                yield key, "cannot stand beside n_sync; give n_sync alone, or n_fetch and n_push"
        elif not given:
            yield "n_sync", "is missing; give n_sync, or n_fetch and n_push"
        elif len(given) == 1:
            other = "n_push" if given == ["n_fetch"] else "n_fetch"
            yield given[0], f"needs {other} beside it; give n_sync, or n_fetch and n_push"

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = ("n_sync",) if self.n_sync is None else ("n_fetch", "n_push")
        return {key: value for key, value in handler(self).items() if key not in absent}


class Asgd(_Apart):
    """GPU A-SGD (Paine et al. 2013): local steps, push, fetch, no waiting. Give n_sync, or n_fetch and n_push."""

    name: Literal["asgd"]
    """This algorithm's name."""


class Downpour(_Apart):
    """Downpour SGD (Dean et al. 2012): as asgd, but training goes on while pushes and the next fetch are under way."""

    name: Literal["downpour"]
    """This algorithm's name."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pushes that a worker may have under way at once."""


class _Together(Part):
    """Fetches and pushes come in pairs."""

    name: str
    """The algorithm's name."""
    n_sync: NSync
    momentum_at_fetch: MomentumAtFetch = "keep"

    @property
    def n_fetch(self) -> int:
        """Local minibatches between two fetches."""
        return self.n_sync

    @property
    def n_push(self) -> int:
        """Local minibatches between two pushes."""
        return self.n_sync


class _Added(_Together):
    """What a worker changed is added as it is: neither rule nor push is a choice."""

    @property
    def rule(self) -> list[Link]:
        """Whole deltas."""
        return [rules.Add(name="add")]

    @property
    def push(self) -> rules.Push:
        """A delta, always."""
        return "delta"


class Ssp(_Together):
    """Stale synchronous parallel (Ho et al. 2013): as asgd, but nobody begins a round too far ahead of the slowest."""

    name: Literal["ssp"]
    """This algorithm's name."""
    bound: Annotated[int, Field(ge=0)]
    """How many rounds a worker may be ahead of the slowest when it begins one, so that their counts of pushes differ by
    bound + 1 at most; with 0, nobody begins a round before all have pushed the one before."""
    rule: Rule = Field(default=[rules.Scale(name="scale")])
    push: Push = "delta"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(rules.contradictions(self.rule, self.push, collects=False))
        return self


class SyncSgd(_Together):
    """Lock-step: the server collects one push of every worker, makes one version of them, and lets all go on."""

    name: Literal["sync_sgd"]
    """This algorithm's name."""
    rule: Rule = Field(default=[rules.Mean(name="mean")])
    push: Push = "delta"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(rules.contradictions(self.rule, self.push, collects=True))
        return self


class Hogwild(_Added):
    """Hogwild (Niu et al. 2011): steps straight in shared parameters, no lock, no copy; cannot be replayed.

    What is recorded as its staleness are the pushes that others told of during a worker's round. How old the parameters
    were that a step read is not known: every step reads them as they are.
    """

    name: Literal["hogwild"]
    """This algorithm's name."""


class Sgd(_Added):
    """Plain SGD: one worker, whose deltas are added as they are."""

    name: Literal["sgd"]
    """This algorithm's name."""
    n_sync: NSync = 1


Algorithm = Annotated[Asgd | Downpour | Ssp | SyncSgd | Hogwild | Sgd, Field(discriminator="name")]
