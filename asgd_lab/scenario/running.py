"""How a scenario is run: when it ends, where it starts from, what is evaluated on the way, and on which backend."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from asgd_lab.scenario.base import BareName, Count, Delay, Part, Seconds, Text, refuse


class Budget(Part):
    """When the run ends: at the first of these that is reached; at least one is needed."""

    minibatches: Count | None = None
    """Minibatches over all workers."""
    updates: Count | None = None
    """Versions of the server's parameters."""
    seconds: Seconds | None = None
    """Seconds of the run's own clock (virtual where the run is simulated)."""
    target_error: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The training error to reach, a share of 1; only with task classification."""
    target_window: Count = 50
    """Minibatches over which the training error that comes with the pushes is averaged for target_error."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if all(one is None for one in (self.minibatches, self.updates, self.seconds, self.target_error)):
            refuse(
                [("", "must say when the run ends; give at least one of minibatches, updates, seconds, target_error")]
            )
        return self


class WarmStart(Part):
    """Where the parameters come from: exactly one of minibatches and run."""

    minibatches: Count | None = None
    """Local minibatches of one worker before the run's clock starts."""
    run: Text | None = None
    """A run directory whose final parameters are taken, relative to the current directory."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if self.minibatches is not None and self.run is not None:
            refuse([("run", "cannot stand beside minibatches; give exactly one of minibatches and run")])
        if self.minibatches is None and self.run is None:
            refuse([("", "is empty; give exactly one of minibatches and run")])
        return self


class Evaluate(Part):
    """What is evaluated on held-out data during the run."""

    every_minibatches: Count
    """Minibatches, over all workers, between two evaluations."""
    parameters: list[Literal["server", "replicas"]] = Field(default=["server"], min_length=1)
    """Whose parameters: the server's, every worker's replica, or both."""


class Faults(Part):
    """Workers that crash and come back; every time is exponential. A crash loses all minibatches that are in no version
    by then: those of the round under way, and a push on its way or in the server's queue. What the server
    has collected, or receives before it hears of the crash, is not lost."""

    mean_time_between_failures_s: Seconds
    """Mean seconds that a worker is up, whatever it does."""
    mean_time_to_repair_s: Seconds
    """Mean seconds from a crash until the worker is back."""
    detect_s: Delay = 0.0
    """Seconds from a crash until the server knows of it; until then it waits for the worker where it has to."""


class Backend(Part):
    """What carries the run out."""

    name: Literal["inline", "sim", "process"]
    """inline (one process, one worker at a time), sim (virtual time) or process (a real run, a process a worker)."""
    device: Literal["cpu", "cuda", "emulated"] = "cpu"
    """Where workers compute; emulated: on the CPU, each minibatch stretched to the time that hardware states."""
    numerics: Literal["sequential", "batched", "auto"] = "sequential"
    """How sim computes gradients: one round after the other; many workers' rounds in one batched call, in other bits;
    or whichever a short probe on this machine finds faster, so that the bits may differ from machine to machine."""


BackendChoice = Annotated[Backend, BareName()]
