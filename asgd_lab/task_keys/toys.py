"""The keys of the tasks without a network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from asgd_lab.configuration import MOST, Count, NonNegative, Part, Positive, Seconds, Size
from asgd_lab.task_keys.optimizers import SGD, Optimizer, Schedule


class QuadraticKeys(Part):
    """The keys of a noisy quadratic bowl."""

    curvature: Annotated[list[Positive], Field(min_length=1)]
    """The second derivative along each coordinate, a number per coordinate. No unit."""
    noise: NonNegative = 0.0
    """The variance of one sample's gradient noise in each coordinate; a minibatch of B samples has noise / B."""
    batch_size: Count = 1
    """Samples in a minibatch."""
    start: Annotated[float, Field(ge=-MOST, le=MOST)] = 1.0
    """The initial value of every coordinate."""
    optimizer: Optimizer = SGD
    """The optimizer of the local steps."""
    schedule: Schedule | None = None
    """The schedule of its learning rate; null: constant."""


class TimingKeys(Part):
    """The keys of messages and steps without learning."""

    size_bytes: Size
    """Bytes that one push or one fetch moves: 4 times the number of parameters."""
    step_s: Seconds | None = None
    """The mean time of one minibatch, in seconds; null: that of hardware.compute, or of its preset."""
