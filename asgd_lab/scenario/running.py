"""The course of a run: its end, its initial parameters, its evaluations, and its faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from asgd_lab.configuration import Count, Delay, Folder, Part, Seconds, Text, refuse


class Observed(Part):
    """A metric of a split that may end the run."""

    split: Text
    """train: the mean over minibatches that comes with the pushes, on every backend. Another split of the task's
    evaluations, such as test: their values for the server's parameters, as often as `evaluate` says; only in a
    simulation, since an evaluation within a real run would take the time that it measures."""
    metric: Text
    """The metric; with split train loss or error."""

    @property
    def in_pushes(self) -> bool:
        """Whether the metric comes with the pushes."""
        return self.split == "train"

    @model_validator(mode="after")
    def _has_such_pushes(self) -> Self:
        if self.in_pushes and self.metric not in ("loss", "error"):
            what = "must be loss or error with split train: no other comes with the pushes"
            refuse([("metric", f"{what}; got {self.metric!r}")])
        return self


class Target(Observed):
    """A value of a metric that ends the run: exactly one of below and above."""

    below: float | None = None
    """The run ends at this value, or a lower one."""
    above: float | None = None
    """The run ends at this value, or a higher one; not with split train."""

    def is_met(self, value: float) -> bool:
        """Whether this value ends the run; NaN does not."""
        return (self.below is not None and value <= self.below) or (self.above is not None and value >= self.above)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.below is None) == (self.above is None):
            refuse([("", "give exactly one of below and above")])
        if self.in_pushes and self.below is None:
            refuse([("above", "cannot stand beside split train, whose loss and error fall; give below")])
        return self


class EarlyStop(Observed):
    """The end of a run whose metric does not improve any more (Goodfellow et al. 2016, algorithm 7.1)."""

    patience: Count
    """The run ends after so many observations on end without an improvement. An observation is one evaluation; with
    split train it is the mean over target_window minibatches, each of which counts once."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """An improvement is larger than this; a value that is not finite is none."""
    mode: Literal["min", "max"] = "min"
    """min: lower is better; max: higher is better, such as an accuracy; not with split train."""

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.in_pushes and self.mode == "max":
            refuse([("mode", "must be min with split train, whose loss and error fall; got 'max'")])
        return self


class Budget(Part):
    """The end of the run: the first of these limits that is reached; at least one is needed."""

    minibatches: Count | None = None
    """Minibatches over all workers."""
    updates: Count | None = None
    """Versions of the server's parameters."""
    seconds: Seconds | None = None
    """Seconds of the run's own clock (virtual in a simulation)."""
    target_error: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The training error to reach, a share of 1; only with task classification."""
    target: Target | None = None
    """The value of a metric to reach, such as {split: test, metric: loss, below: 0.3}."""
    early_stop: EarlyStop | None = None
    """The end once a metric stops improving, such as {split: test, metric: loss, patience: 5}. The run keeps
    its last parameters, not those of the best evaluation."""
    target_window: Count = 50
    """Minibatches over which the training error or loss in the pushes is averaged for target_error, a target or an
    early stop."""

    @property
    def error_in_pushes(self) -> float | None:
        """The target for the training error in the pushes."""
        return self.target_error if self.target_error is not None else self._of_pushes("error")

    @property
    def loss_in_pushes(self) -> float | None:
        """The target for the training loss in the pushes."""
        return self._of_pushes("loss")

    @property
    def stop_in_pushes(self) -> EarlyStop | None:
        """The early stop by loss or error in the pushes."""
        return self.early_stop if self.early_stop is not None and self.early_stop.in_pushes else None

    @property
    def keys_in_pushes(self) -> dict[str, str]:
        """The keys of limits that are judged by the pushes, each with its metric."""
        found = {} if self.target_error is None else {"target_error": "error"}
        limits = {"target": self.target, "early_stop": self.early_stop}
        return found | {key: each.metric for key, each in limits.items() if each is not None and each.in_pushes}

    def _of_pushes(self, metric: str) -> float | None:
        target = self.target
        return target.below if target is not None and target.in_pushes and target.metric == metric else None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        limits = ("minibatches", "updates", "seconds", "target_error", "target", "early_stop")
        if all(getattr(self, each) is None for each in limits):
            refuse([("", f"must say when the run ends; give at least one of {', '.join(limits)}")])
        if self.target_error is not None and self._of_pushes("error") is not None:
            refuse([("target", "is a second target_error; remove one of the two")])
        return self


class WarmStart(Part):
    """The source of the initial parameters: exactly one of minibatches and run."""

    minibatches: Count | None = None
    """Local minibatches of one worker before the run's clock starts."""
    run: Annotated[Text | None, Folder()] = None
    """A run directory, for its final parameters or those of its last checkpoint, or a checkpoint in one; relative to
    the current directory."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if self.minibatches is not None and self.run is not None:
            refuse([("run", "cannot stand beside minibatches; give exactly one of minibatches and run")])
        if self.minibatches is None and self.run is None:
            refuse([("", "is empty; give exactly one of minibatches and run")])
        return self


class Evaluate(Part):
    """Evaluations on held-out data during the run; give exactly one of every_minibatches and every_steps."""

    every_minibatches: Count | None = None
    """Minibatches, over all workers, between two evaluations."""
    every_steps: Count | None = None
    """Minibatches of each worker, on average, between two evaluations, for any number of workers."""
    parameters: list[Literal["server", "replicas"]] = Field(default=["server"], min_length=1)
    """The evaluated parameters: the server's, every worker's replica, or both."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.every_minibatches is None) == (self.every_steps is None):
            refuse([("", "give exactly one of every_minibatches and every_steps")])
        return self

    def interval(self, workers: int) -> int:
        """Minibatches over so many workers between two evaluations."""
        return self.every_minibatches or (self.every_steps or 0) * workers


Number = Annotated[int, Field(ge=0)]


class Kill(Part):
    """A worker dies: in a real run its process is killed."""

    name: Literal["kill"]
    """The kind of fault."""
    worker: Number
    """The worker's number, from 0."""
    at_s: Delay
    """The time, in seconds of the run's clock."""
    repair_s: Delay = 0.0
    """Seconds until it is started again, with on_death restart; a real process takes its own start in addition."""


class Slow(Part):
    """A worker's device is slow for a while."""

    name: Literal["slow"]
    """The kind of fault."""
    worker: Number
    """The worker's number, from 0."""
    at_s: Delay
    """The start, in seconds of the run's clock."""
    until_s: Seconds
    """The end, in seconds of the same clock."""
    factor: Annotated[float, Field(ge=1, le=1e6)]
    """The factor by which minibatches take longer."""

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        refuse(_ends_before(self.at_s, self.until_s))
        return self


class Stop(Part):
    """A worker pauses, and continues where it was: in a real run its process is stopped, and continued."""

    name: Literal["stop"]
    """The kind of fault."""
    worker: Number
    """The worker's number, from 0."""
    at_s: Delay
    """The start, in seconds of the run's clock."""
    until_s: Seconds
    """The end, in seconds of the same clock."""

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        refuse(_ends_before(self.at_s, self.until_s))
        return self


class ServerDown(Part):
    """The server is down for a while, and repeats its last service. In a real run it is killed, and recovers."""

    name: Literal["server_down"]
    """The kind of fault."""
    at_s: Delay
    """The start, in seconds of the run's clock."""
    for_s: Seconds
    """The duration in seconds; for a real server at least the time of its own start."""


Scheduled = Annotated[Kill | Slow | Stop | ServerDown, Field(discriminator="name")]


def _ends_before(at_s: float, until_s: float) -> Iterator[tuple[str, str]]:
    if until_s <= at_s:
        yield "until_s", f"must be later than at_s, which is {at_s:g}; got {until_s:g}"


class Faults(Part):
    """Crashes and restarts of workers, and failures of the server: at random times, at stated times, or real ones.

    A crash loses all minibatches that are in no version by then: those of the current round, and a push in flight or in
    the server's queue. A push that the server has collected, or receives before it hears of the crash, is not lost.
    """

    mean_time_between_failures_s: Seconds | None = None
    """Mean seconds from a worker's start to its crash; exponential. With on_death restart, together with
    mean_time_to_repair_s."""
    mean_time_to_repair_s: Seconds | None = None
    """Mean seconds from a crash until the worker is started again; exponential."""
    detect_s: Delay = 0.0
    """Seconds from a crash until the server knows of it; until then the server waits for the worker if it must. A real
    server hears of a death at once."""
    schedule: list[Scheduled] = Field(default=[])
    """Faults at stated times, each by its name: kill, slow, stop, server_down."""
    on_death: Literal["restart", "continue", "stop"] = "restart"
    """The reaction to a worker's death, for any reason: restart it, as a new incarnation that fetches and trains on;
    continue without it; or stop the run, which has failed."""
    silent_s: Seconds | None = None
    """Seconds without a sign of life after which a real worker is failed; if it wakes, it begins a new incarnation.
    null: 50 times the longest minibatch of any worker, at least 10 s. A silent real server is killed, and recovers as
    if it had died: after at least 2 s; null: 50 times its longest request, at least 10 s."""
    on_not_finite: Literal["ignore", "restart", "stop"] = "ignore"
    """The reaction to a minibatch whose loss is not finite: none; the worker discards its round and begins a new
    incarnation; or the run stops, and has failed. Not for tasks without a loss."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        up, down = "mean_time_between_failures_s", "mean_time_to_repair_s"
        restarts = self.on_death == "restart"  # else nothing is repaired
        for key, other, is_needed in ((up, down, restarts), (down, up, True)):
            if getattr(self, key) is not None and getattr(self, other) is None and is_needed:
                refuse([(key, f"needs {other} beside it; give both, or neither")])
        return self
