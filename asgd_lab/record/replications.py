"""Replications, runs that differ in their seed alone: their means and 95% confidence intervals.

Intervals are Student's: mean ± t s/√n, with t the quantile of n - 1 degrees of freedom. Runs with the same seed have
the same random numbers in every configuration (streams.py), so configurations are compared seed by seed: what a seed
does to both of them cancels (Law, Simulation Modeling and Analysis, sections 9.4 and 11.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95
OVER_BASE = ("speedup", "target_speedup", "efficiency")
"""The metrics of a run and of another one, its base, which may be missing."""
COURSE = {
    *("makespan_s", "staleness_mean", "worker_utilisation", "server_utilisation"),
    *OVER_BASE,
    "target_reached",
}
"""The metrics of a run's course, or that follow from others; all others are of its result."""


class Estimate(NamedTuple):
    """The mean of n numbers and the half-width of its interval, which is NaN for a single number."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of at least one number, with its interval."""
    n = len(values)
    if n < 2:
        return Estimate(float(values[0]), math.nan, n)
    from scipy import stats  # its import takes a second, and a single run has no interval

    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1))
    return Estimate(float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / math.sqrt(n), n)


def difference(of: Mapping[int, float], against: Mapping[int, float]) -> Estimate | None:
    """The mean of `of` minus `against`, paired by seed; None if they have no seed in common."""
    common = [seed for seed in of if seed in against]
    return estimate([of[seed] - against[seed] for seed in common]) if common else None


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers by which runs are compared; for a backend without a clock, those that need no time."""
    busy = summary["utilisation"]
    numbers = {
        "makespan_s": summary["makespan_s"],
        "minibatches_per_s": summary["minibatches_per_s"],
        "staleness_mean": summary["staleness"]["mean"],
        "worker_utilisation": busy["workers"],
        "server_utilisation": busy["server"],
    }
    if summary.get("clock") == "effects":
        numbers = {"staleness_mean": numbers["staleness_mean"]}
    # A number that was not finite is null in a summary that was read.
    return numbers | {name: math.nan if value is None else value for name, value in summary["final"].items()}
