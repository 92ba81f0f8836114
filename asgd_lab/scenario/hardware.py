"""The hardware a run is simulated or emulated on, as a scenario states it: seconds, bytes and cores, no behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from asgd_lab.scenario.base import Count, NonNegative, Part, Positive, Text, refuse


class Compute(Part):
    """How long a worker computes on one minibatch."""

    distribution: Literal["constant", "lognormal", "exponential", "empirical"] = "constant"
    """How the time of a minibatch varies around its mean; empirical draws from samples_s or from a recorded run."""
    step_s: Positive | None = None
    """The mean time of one minibatch, in seconds; null: the task timing states it, or the samples have it."""
    cv: Positive = 0.1
    """Coefficient of variation (standard deviation / mean); only with distribution lognormal."""
    samples_s: Annotated[list[Positive], Field(min_length=1)] | None = None
    """Measured times of minibatches, in seconds; only with distribution empirical."""
    run: Text | None = None
    """A run directory whose recorded minibatches are the samples; only with distribution empirical."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if self.distribution != "lognormal" and "cv" in self.model_fields_set:
            yield "cv", f"belongs to distribution lognormal, not {self.distribution}; remove it or set lognormal"
        samples = [key for key in ("samples_s", "run") if getattr(self, key) is not None]
        if self.distribution != "empirical":
            for key in samples:
                yield key, f"belongs to distribution empirical, not {self.distribution}; remove it or set empirical"
        elif not samples:
            yield "distribution", "'empirical' needs samples; give samples_s or run"
        elif len(samples) == 2:
            yield "run", "cannot stand beside samples_s; give exactly one of samples_s and run"

    @model_serializer(mode="wrap")
    def _without_what_does_not_apply(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = () if self.distribution == "lognormal" else ("cv",)
        return {key: value for key, value in handler(self).items() if key not in absent}


class Client(Part):
    """Software cost that each worker pays itself, in parallel with the others."""

    push_s: NonNegative = 0.0
    """Seconds a worker spends on each push."""
    fetch_s: NonNegative = 0.0
    """Seconds a worker spends on each fetch."""


class Link(Part):
    """The way between a worker and the server, one direction."""

    latency_s: NonNegative = 0.0
    """Seconds from sending to the first byte's arrival."""
    bandwidth_bytes_per_s: Positive | None = None
    """Bytes a second in one direction; null: unlimited."""


class Server(Part):
    """The server's own cost: serial, first come first served."""

    push_s: NonNegative = 0.0
    """Seconds the server spends on each push."""
    fetch_s: NonNegative = 0.0
    """Seconds the server spends on each fetch."""
    one_sided_fetch: bool = False
    """Whether a fetch reads the parameters past the server (RDMA): it then costs no time there and does not queue."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.one_sided_fetch and self.fetch_s:
            refuse([("fetch_s", "must be 0 where one_sided_fetch is true: the server does not see the fetch")])
        return self


class Hardware(Part):
    """Devices, link and server of the simulated or emulated machine."""

    compute: Compute = Compute()
    """Each worker's device."""
    client: Client = Client()
    """Each worker's own software cost."""
    link: Link = Link()
    """What pushes and fetches travel over."""
    server: Server = Server()
    """The parameter server."""
    cores: Count | None = None
    """Cores of one node, which workers and server share; null: never short of cores."""
