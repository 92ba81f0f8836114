"""The base of algorithms: keys of a scenario, facts for the other parts, and a sentence over program, gate and rule.

Programs, gates and rules are in the protocol, which imports torch. A scenario is read without torch, so an algorithm
imports them only when its sentence is built.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

import asgd_lab.algorithms.rules as rules
from asgd_lab.algorithms.codecs import AnyCodec, Compression
from asgd_lab.choices import Choice, Unread, is_ours
from asgd_lab.configuration import Count, refuse
from asgd_lab.errors import ScenarioError
from asgd_lab.trust import refusal
from asgd_lab.users_errors import blaming, failing

if TYPE_CHECKING:
    from asgd_lab.protocol.algorithms import Algorithm
    from asgd_lab.protocol.effects import Program
    from asgd_lab.protocol.replica import Replica
    from asgd_lab.protocol.rules import Rule

Links = Annotated[
    list[rules.AnyLink],
    Field(
        min_length=1,
        description="The server's rule, from an update to a step: links applied in this order, each a mapping with a "
        "name, or the name alone.",
        examples=[["scale"], [{"name": "scale", "factor": 0.5}, {"name": "momentum", "beta": 0.9}]],
    ),
]
Push = Annotated[
    rules.Push,
    Field(
        description="The content of a push: delta (the change of the parameters) or gradient (the sum over its "
        "minibatches)."
    ),
]
MomentumAtFetch = Annotated[
    Literal["keep", "reset"],
    Field(description="The local optimizer's state at a fetch: keep it, or reset it."),
]
Encoding = Annotated[
    AnyCodec | None, Field(description="What an update loses on the wire, and its bytes there; null: nothing.")
]
NSync = Annotated[Count, Field(description="Local minibatches between two synchronisations.")]


class Configuration(Choice):
    """An algorithm as a scenario states it. Each subclass has its keys, states facts that differ, and a sentence."""

    registry = "algorithms"
    most_workers: ClassVar[int | None] = None
    """The most workers that it allows; None: any number."""
    collects: ClassVar[bool] = False
    """Whether a version is made from a round of pushes, and not from one."""
    one_server: ClassVar[bool] = True
    """Whether it needs one server that knows all workers; else each slice may have an independent server."""
    overlaps: ClassVar[bool] = False
    """Whether training continues while pushes and fetches are in flight."""
    shared: ClassVar[bool] = False
    """Whether all workers train in one vector, without versions."""

    if TYPE_CHECKING:  # keys of some subclasses and properties of others; pydantic has no form for that

        @property
        def n_fetch(self) -> int:
            """Local minibatches between two fetches."""

        @property
        def n_push(self) -> int:
            """Local minibatches between two pushes."""

        @property
        def rule(self) -> list[rules.Link]:
            """The links from an update to a step of the server."""

        @property
        def push(self) -> rules.Push:
            """The content of a push."""

    @property
    def divides(self) -> int:
        """The parts that it divides the parameters into, its key or property `parts`; 0: the vector is undivided."""
        return getattr(self, "parts", 0)

    @property
    def encoding(self) -> Compression | None:
        """The codec, of those that have the key."""
        return getattr(self, "codec", None)

    def refuses(self, scenario: Any) -> Iterator[tuple[str, str]]:
        """Keys of the scenario that contradict this algorithm: a dotted key, and the reason."""
        workers, backend = scenario.workers, scenario.backend
        if self.most_workers is not None and workers > self.most_workers:
            allowed = f"{'at most ' if self.most_workers > 1 else ''}{self.most_workers}"
            message = f"must be {allowed} with algorithm {self.name}; got {workers}; for more use asgd, ssp or sync_sgd"
            yield "workers", message
        if self.one_server and scenario.hardware.server.independent:
            message = f"{self.name} needs one server that knows all workers; use asgd or downpour"
            yield "hardware.server.independent", message
        if backend.distances and backend.execution.measures_distances and scenario.task.learns:
            if self.overlaps or self.shared or self.divides or self.n_fetch != self.n_push:
                message = "needs an update to have one center: n_sync, and not downpour, hogwild or parts"
                yield "backend.distances", message
            elif scenario.hardware.server.independent:
                yield "backend.distances", "cannot stand beside independent servers; remove it"
        if self.divides and scenario.hardware.server.independent:
            yield "hardware.server.independent", f"cannot stand beside {self.name}, which divides the parameters itself"
        if self.shared:
            yield from self._without_copies(backend)
        server = scenario.hardware.server
        if self.encoding is not None and server.count > 1 and not server.independent:
            message = "must be 1 beside a codec, whose wire form has no slices; or make the servers independent"
            yield "hardware.server.count", message

    def _without_copies(self, backend: Any) -> Iterator[tuple[str, str]]:
        if backend.device == "cuda":
            message = f"must be cpu or emulated with {self.name}, whose workers share memory; got cuda"
            yield "backend.device", message
        if backend.checkpoint is not None:
            message = f"cannot stand beside {self.name}: there is no moment at which its parameters are whole"
            yield "backend.checkpoint", message
        if backend.digest_every_updates is not None:
            message = f"cannot stand beside {self.name}, which has no versions; remove it"
            yield "backend.digest_every_updates", message

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        missing = [name for name in ("n_fetch", "n_push", "rule", "push") if not hasattr(self, name)]
        if missing:
            yield "name", f"its class must have {', '.join(missing)}, as keys or as properties"
        else:
            yield from rules.contradictions(self.rule, self.push, collects=self.collects)

    def build(self, workers: int) -> Algorithm:
        """The algorithm for a run of so many workers."""
        rule = rules.chained(self.rule, workers)
        if rule.needs_center and (self.overlaps or self.divides or self.n_fetch != self.n_push):
            what = "needs the center that a push started from, which is kept until the next fetch alone"
            raise ScenarioError.at("algorithm.rule", f"{rule.name} {what}: use n_sync, without overlap and parts")
        with blaming(self, "algorithm.name"):
            said = self.sentence(rule)
            said = said if is_ours(self) else self._of_somebody(said)
        if self.encoding is None:
            return said
        with blaming(self.encoding, "algorithm.codec"):
            return dataclasses.replace(said, codec=self.encoding.build())

    def _of_somebody(self, said: Any) -> Algorithm:
        """A user's algorithm, checked against its class's facts; an error in its program fails the run in one line."""
        from asgd_lab.protocol import programs
        from asgd_lab.protocol.algorithms import Algorithm

        if not isinstance(said, Algorithm):
            raise TypeError(f"sentence must return a protocol.algorithms.Algorithm, not a {type(said).__name__}")
        facts = (self.collects, self.overlaps, self.shared, self.divides)
        does = (said.gate.collects, said.overlaps, said.shared, said.parts)
        if facts != does:
            raise ValueError(f"its class says collects, overlaps, shared and parts are {facts}, its sentence {does}")
        if said.parts and said.gate.rounds:
            raise ValueError("a gate of rounds cannot stand beside parts")

        if getattr(said.program, "func", said.program).__module__ == programs.__name__:
            return said  # a program of ours

        def program(replica: Replica) -> Program:
            with failing(f"worker {replica.worker}: the program of {self.name}"):
                yield from said.program(replica)

        return dataclasses.replace(said, program=program)

    @abstractmethod
    def sentence(self, rule: Rule) -> Algorithm:
        """The program, the gate and this rule, as the backends run them."""


class Apart(Configuration):
    """Base of algorithms whose fetches and pushes may have different rhythms."""

    n_sync: Count | None = None
    """Local minibatches between two synchronisations (a push and a fetch); instead of n_fetch and n_push."""
    n_fetch: Count = Field(default_factory=lambda known: known["n_sync"])
    """Local minibatches between two fetches; together with n_push, instead of n_sync."""
    n_push: Count = Field(default_factory=lambda known: known["n_sync"])
    """Local minibatches between two pushes; together with n_fetch, instead of n_sync."""
    rule: Links = Field(default=[rules.Scale(name="scale")])
    push: Push = "delta"
    codec: Encoding = None
    momentum_at_fetch: MomentumAtFetch = "keep"

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        yield from self._rhythm()
        yield from super()._contradictions()

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


class Together(Configuration):
    """Base of algorithms whose fetches and pushes come in pairs."""

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


class Ruled(Together):
    """Fetches and pushes come in pairs; the content of a push and the server's rule are keys."""

    rule: Links = Field(default=[rules.Scale(name="scale")])
    push: Push = "delta"
    codec: Encoding = None


class Added(Together):
    """Base of algorithms whose deltas are added as they are: neither rule nor push is a key."""

    @property
    def rule(self) -> list[rules.Link]:
        return [rules.Add(name="add")]

    @property
    def push(self) -> rules.Push:
        return "delta"


class UnreadAlgorithm(Configuration, Unread):
    """An algorithm whose code may not be imported; its facts have no effect."""

    one_server = False

    @property
    def n_fetch(self) -> int:
        return 1

    @property
    def n_push(self) -> int:
        return 1

    @property
    def rule(self) -> list[rules.Link]:
        return []

    @property
    def push(self) -> rules.Push:
        return "delta"

    def build(self, workers: int) -> Algorithm:
        """Raise the error that the code is not trusted."""
        raise ScenarioError.at("algorithm.name", refusal([("algorithm.name", self.name)]))

    def sentence(self, rule: Rule) -> Algorithm:
        return self.build(1)
