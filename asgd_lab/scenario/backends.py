"""What a scenario says of the backend that carries it out: which one, on which devices, and what it saves."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from asgd_lab.choices import Chosen
from asgd_lab.configuration import BareName, Count, Part, Seconds, refuse
from asgd_lab.scenario.executions import BACKENDS, Execution


class Checkpoint(Part):
    """When a real run saves all that it needs to go on from there: by versions or by time, exactly one of them."""

    every_updates: Count | None = None
    """Versions of the server's parameters between two checkpoints."""
    every_s: Seconds | None = None
    """Seconds between two checkpoints."""
    keep: Count = 2
    """How many are kept, the newest."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.every_updates is None) == (self.every_s is None):
            refuse([("", "give exactly one of every_updates and every_s")])
        return self


class Backend(Chosen):
    """What carries the run out."""

    registry = "backends"

    name: Annotated[str, BACKENDS]
    """inline (one process, one worker at a time), sim (virtual time) or process (a real run, a process a worker)."""
    device: Literal["cpu", "cuda", "emulated"] = "cpu"
    """Where workers compute; emulated: on the CPU, each minibatch stretched to the time that hardware states. cuda:
    real workers on the node's GPUs in turn, all of inline or sim on the first one."""
    deterministic: bool = False
    """Whether GPUs compute by torch's deterministic algorithms alone, so that replay can repeat the run to the bit; an
    operation that has none is an error then. Only with device cuda."""
    numerics: Literal["sequential", "batched", "auto"] = "sequential"
    """How sim computes gradients: one round after the other; many workers' rounds in one batched call, in other bits;
    or whichever a short probe on this machine finds faster, so that the bits may differ from machine to machine."""
    distances: bool = False
    """Whether each update's staleness is recorded as a distance too, in distances.parquet: the Euclidean norm of what
    the server moved between the fetch and the application. Only where fetches and pushes alternate."""
    checkpoint: Checkpoint | None = None
    """When a real run saves all that it needs to go on from there; null: never. Only with backend process."""
    digest_every_updates: Count | None = None
    """After how many versions a real run records a hash of its parameters, which replay compares; null: only of what is
    evaluated or saved. Only with backend process."""

    @property
    def execution(self) -> Execution:
        """What it can and cannot do."""
        found: Execution = BACKENDS.find(self.name)(self.name)
        return found


BackendChoice = Annotated[Backend, BareName()]
