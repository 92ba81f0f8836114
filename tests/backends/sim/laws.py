"""How a run is held against a law.

Deterministic claims are tested exactly, in nanoseconds or versions. A claim about random runs is a test of a stated
statistic at level 0.001, over seeds that are fixed: it passes or fails for good. All p-values are two-sided.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from tests.backends.virtual import TIMING, Run, scenario, simulate

LEVEL = 0.001
SECOND = 10**9
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EXPONENTIAL: dict[str, Any] = {"compute": {"distribution": "exponential"}}


def accept(p: float) -> None:
    """The law stands: what was seen is not among the rarest `LEVEL` of what it allows; `pytest -s` shows p."""
    print(f"\np = {p:.2g} of {os.environ['PYTEST_CURRENT_TEST'].partition('::')[2].removesuffix(' (call)')}")
    assert p > LEVEL


def timing_run(workers: int, updates: int, hardware: dict[str, Any], seed: int = 0, **algorithm: Any) -> Run:
    """A-SGD over minibatches that take a second in the mean, unless the algorithm is another."""
    algorithm = {"name": "asgd", "n_sync": 1} | algorithm
    return simulate(scenario(TIMING, algorithm, workers, {"updates": updates}, hardware, seed=seed))


def staleness(run: Run) -> Ints:
    """Of each version, in order."""
    found: Ints = run.applies["staleness"].to_numpy()
    return found


def batch_means_p(samples: Floats, expected: float, batches: int = 20) -> float:
    """Student's t over means of long batches, which are nearly independent though their samples are not."""
    length = len(samples) // batches
    means = samples[: batches * length].reshape(batches, length).mean(axis=1)
    return float(stats.ttest_1samp(means, expected).pvalue)


def normal_p(observed: float, expected: float, deviation: float) -> float:
    """z, where the deviation is known."""
    return float(2 * stats.norm.sf(abs(observed - expected) / deviation))


def pooled_chi_square_p(samples: Ints, law: Any, least: float = 8) -> float:
    """Pearson's chi-square of counts 0, 1, ... over cells with at least `least` expected, the tail pooled."""
    cells = 1
    while law.sf(cells) * len(samples) >= least:
        cells += 1
    observed = np.bincount(np.minimum(samples, cells), minlength=cells + 1)
    expected = len(samples) * np.append(law.pmf(np.arange(cells)), law.sf(cells - 1))
    return float(stats.chisquare(observed, expected).pvalue)


def geometric_from_0(mean: float) -> Any:
    """P(k) = (1-r) r^k with this mean."""
    return stats.geom(1 / (1 + mean), loc=-1)


def ends_of_versions(run: Run) -> Floats:
    """When each version was made, in seconds."""
    ends: Floats = run.applies["end_s"].to_numpy() / SECOND
    return ends
