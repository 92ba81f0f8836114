"""The scenario's keys for its backend: its name, its devices, and its checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from asgd_lab.choices import Chosen
from asgd_lab.configuration import BareName, Count, Part, Seconds, refuse
from asgd_lab.scenario.executions import BACKENDS, Execution


class Checkpoint(Part):
    """The interval of a real run's checkpoints: by versions or by time, exactly one of them."""

    every_updates: Count | None = None
    """Versions of the server's parameters between two checkpoints."""
    every_s: Seconds | None = None
    """Seconds between two checkpoints."""
    keep: Count = 2
    """The number of checkpoints to keep, the newest ones."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.every_updates is None) == (self.every_s is None):
            refuse([("", "give exactly one of every_updates and every_s")])
        return self


class Backend(Chosen):
    """The backend that carries the run out."""

    registry = "backends"

    name: Annotated[str, BACKENDS]
    """inline (one process, one worker at a time), sim (virtual time) or process (a real run, a process a worker)."""
    device: Literal["cpu", "cuda", "emulated"] = "cpu"
    """The workers' devices; emulated: the CPU, with each minibatch stretched to the time that hardware states. cuda:
    for real workers the node's GPUs in turn, for inline and sim the first one."""
    deterministic: bool = False
    """Whether GPUs use only torch's deterministic algorithms, so that replay repeats the run to the bit; an operation
    without one is then an error. Only with device cuda."""
    numerics: Literal["sequential", "batched", "auto"] = "sequential"
    """The computation of gradients in sim: one round after the other; many workers' rounds in one batched call, with
    other bits; or the faster of the two by a short probe on this machine, so bits may differ between machines."""
    distances: bool = False
    """Whether each update's staleness is also recorded as a distance, in distances.parquet: the Euclidean norm of the
    server's movement between the fetch and the application. Only if fetches and pushes alternate."""
    checkpoint: Checkpoint | None = None
    """The checkpoints of a real run; null: none. Only with backend process."""
    digest_every_updates: Count | None = None
    """The number of versions between two recorded hashes of a real run's parameters, which replay compares; null: only
    versions that are evaluated or saved. Only with backend process."""

    @property
    def execution(self) -> Execution:
        """The backend's facts and refusals."""
        found: Execution = BACKENDS.find(self.name)(self.name)
        return found


BackendChoice = Annotated[Backend, BareName()]
