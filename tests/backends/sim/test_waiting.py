"""Who waits for whom: lock-step rounds are as long as their slowest worker, bounded staleness keeps its bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from tests.backends.sim.laws import EXPONENTIAL, SECOND, Floats, accept, timing_run
from tests.backends.virtual import Run


def rounds_of(run: Run) -> Floats:
    """How long each lock-step round took, in seconds."""
    ends = run.applies.groupby("version")["end_s"].max().drop(-1, errors="ignore")
    found: Floats = np.diff(np.concatenate([[0], ends.to_numpy()])) / SECOND
    return found


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_lock_step_round_of_exponential_workers_takes_h_m_times_the_mean(workers: int) -> None:
    """The mean of the largest of M is H_M = 1 + 1/2 + ... + 1/M. Rounds are independent: Student's t."""
    rounds = rounds_of(timing_run(workers, 1_500, EXPONENTIAL, seed=3, name="sync_sgd"))
    accept(float(stats.ttest_1samp(rounds, sum(1 / k for k in range(1, workers + 1))).pvalue))


def largest(law: Any, workers: int) -> tuple[Callable[[Floats], Floats], float]:
    """The distribution function of the largest of M, F^M, and its mean: the integral of 1 - F^M."""
    mean, _ = integrate.quad(lambda t: 1 - law.cdf(t) ** workers, 0, np.inf, limit=200)
    return lambda t: law.cdf(t) ** workers, mean


LOG = math.sqrt(math.log1p(0.8**2))
LAWS: dict[str, tuple[dict[str, Any], Any]] = {
    "exponential": ({"distribution": "exponential"}, stats.expon()),
    "gamma": ({"distribution": "gamma", "cv": 1.6}, stats.gamma(1.6**-2, scale=1.6**2)),
    "lognormal": ({"distribution": "lognormal", "cv": 0.8}, stats.lognorm(LOG, scale=math.exp(-(LOG**2) / 2))),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("workers", [2, 6])
def test_a_lock_step_round_is_distributed_as_the_largest_of_m(name: str, workers: int) -> None:
    """Order statistics: F^M, by Kolmogorov and Smirnov, and its mean by Student's t; rounds are independent."""
    compute, law = LAWS[name]
    assert law.mean() == pytest.approx(1)
    distribution, mean = largest(law, workers)
    rounds = rounds_of(timing_run(workers, 1_000, {"compute": compute}, seed=7, name="sync_sgd"))
    accept(float(stats.kstest(rounds, distribution).pvalue))
    accept(float(stats.ttest_1samp(rounds, mean).pvalue))


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_the_clocks_of_fastest_and_slowest_differ_by_at_most_bound_plus_one(bound: int) -> None:
    """Ho et al. 2013, counted as gates.py counts: a fetch at most `bound` rounds ahead, so at most bound + 1 pushes."""
    run = timing_run(5, 1_000, EXPONENTIAL, seed=4, name="ssp", bound=bound)
    rounds = np.zeros(5, int)
    widest = 0
    for worker, round in zip(run.rows("push")["worker"], run.rows("push")["round"], strict=True):
        rounds[worker] = round
        widest = max(widest, rounds.max() - rounds.min())
    assert widest == bound + 1
