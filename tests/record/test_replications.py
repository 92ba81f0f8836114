"""Means of replications against scipy's own intervals, and what pairing by seed is worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from asgd_lab.record.replications import difference, estimate, metrics

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30)


@given(st.lists(NUMBERS, min_size=2, max_size=30, unique_by=lambda number: round(number, 3)))
def test_an_interval_is_that_of_students_test(values: list[float]) -> None:
    found, reference = estimate(values), stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=1e-6, abs=1e-6)
    assert found.n == len(values)


@given(PAIRS)
def test_a_difference_is_estimated_from_the_differences_of_each_seed(pairs: list[tuple[float, float]]) -> None:
    one = {seed: a for seed, (a, _) in enumerate(pairs)}
    other = {seed: b for seed, (_, b) in reversed(list(enumerate(pairs)))}  # the order does not matter
    found = difference(one | {1000: 1e9}, other | {1001: -1e9})  # what has no partner does not count
    assert found is not None
    assert found == estimate([a - b for a, b in pairs])
    if min(np.ptp([a - b for a, b in pairs]), 1.0) == 1.0:
        reference = stats.ttest_rel([a for a, _ in pairs], [b for _, b in pairs]).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((reference.low, reference.high), rel=1e-6, abs=1e-6)


def test_without_a_common_seed_there_is_no_difference() -> None:
    assert difference({1: 0.5}, {2: 0.5}) is None


def test_a_single_run_has_a_mean_and_no_interval() -> None:
    found = estimate([2.5])
    assert (found.mean, found.n) == (2.5, 1)
    assert all(math.isnan(bound) for bound in (found.half_width, found.low, found.high))


def test_equal_runs_have_an_interval_of_no_width() -> None:
    assert estimate([0.5] * 4) == (0.5, 0.0, 4)


def test_of_intervals_from_few_normal_numbers_95_in_100_hold_the_true_mean() -> None:
    drawn = np.random.default_rng(7).normal(3.0, 2.0, size=(2000, 4))
    held = sum(found.low <= 3.0 <= found.high for found in map(estimate, drawn.tolist()))
    assert abs(held / 2000 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_what_two_configurations_share_cancels_when_they_are_paired() -> None:
    drawn = np.random.default_rng(3)
    shared, own = drawn.normal(0, 1, 8), drawn.normal(0, 0.1, (2, 8))
    one, other = (dict(enumerate((shared + each).tolist())) for each in own)
    paired = difference(one, other)
    assert paired is not None
    apart = stats.ttest_ind(list(one.values()), list(other.values()), equal_var=False).confidence_interval(0.95)
    assert paired.half_width < (apart.high - apart.low) / 2 / 3


SUMMARY = {
    **{"makespan_s": 2.0, "minibatches_per_s": 5.0, "staleness": {"mean": 1.5, "max": 3}},
    **{"utilisation": {"workers": 0.9, "server": 0.1}, "final": {"test_loss": None, "test_error": 0.25}},
}


def test_the_metrics_of_a_run_are_its_numbers_and_what_was_not_finite_is_nan() -> None:
    found = metrics(SUMMARY)
    assert math.isnan(found.pop("test_loss"))
    assert found == {
        **{"makespan_s": 2.0, "minibatches_per_s": 5.0, "staleness_mean": 1.5},
        **{"worker_utilisation": 0.9, "server_utilisation": 0.1, "test_error": 0.25},
    }


def test_a_backend_without_a_clock_has_no_times_to_compare() -> None:
    found = metrics({**SUMMARY, "clock": "effects", "final": {}})
    assert found == {"staleness_mean": 1.5}
