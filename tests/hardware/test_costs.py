"""Step times are streams of their own, and costs are integer nanoseconds."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.costs import Costs
from asgd_lab.hardware.steps import BLOCK, StepTimes, mean_step_s
from asgd_lab.scenario.hardware import Compute, Hardware

DISTRIBUTIONS: list[dict[str, Any]] = [
    {"step_s": 0.002},
    {"distribution": "exponential", "step_s": 0.002},
    {"distribution": "lognormal", "cv": 0.5, "step_s": 0.002},
    {"distribution": "empirical", "samples_s": [0.001, 0.002, 0.003]},
]


def times(config: dict[str, Any], worker: int = 0) -> StepTimes:
    return StepTimes(Compute.model_validate(config), seed=7, worker=worker)


@pytest.mark.parametrize("config", DISTRIBUTIONS, ids=lambda c: c.get("distribution", "constant"))
@settings(max_examples=20)
@given(rounds=st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=5))
def test_how_a_stream_is_cut_into_rounds_does_not_change_it(config: dict[str, Any], rounds: list[int]) -> None:
    by_round = times(config)
    whole = times(config).ends_ns(sum(rounds))
    totals = [by_round.total_ns(steps) for steps in rounds]
    assert np.cumsum(totals).tolist() == [whole[end - 1] for end in np.cumsum(rounds)]


@pytest.mark.parametrize("config", DISTRIBUTIONS[1:3], ids=lambda c: c["distribution"])
def test_drawn_times_have_the_stated_mean_and_distribution(config: dict[str, Any]) -> None:
    drawn = np.diff(times(config).ends_ns(20_000), prepend=0) / 1e9
    if config["distribution"] == "exponential":
        stated = stats.expon(scale=0.002)
    else:
        sigma = np.sqrt(np.log1p(0.25))
        stated = stats.lognorm(sigma, scale=0.002 / np.exp(sigma**2 / 2))
        assert drawn.std() / drawn.mean() == pytest.approx(0.5, rel=0.05)
    assert stated.mean() == pytest.approx(0.002)
    assert stats.kstest(drawn, stated.cdf).pvalue > 0.01  # a fixed seed: it passes or fails for good


def test_workers_draw_from_streams_of_their_own() -> None:
    config = DISTRIBUTIONS[1]
    a, b = (np.diff(times(config, worker).ends_ns(2000)) for worker in (0, 1))
    assert abs(stats.spearmanr(a, b).statistic) < 0.08


def test_a_device_without_a_step_time_is_refused_by_key() -> None:
    with pytest.raises(ScenarioError) as caught:
        mean_step_s(Compute())
    assert caught.value.key == "hardware.compute.step_s"
    assert mean_step_s(Compute(), stated_step_s=0.5) == 0.5


def test_a_transfer_takes_its_bytes_over_the_bandwidth() -> None:
    hardware = Hardware.model_validate({"link": {"latency_s": 1e-6, "bandwidth_bytes_per_s": 8e9}})
    costs = Costs.of(hardware, 243_860_896)
    assert costs.up_ns == costs.down_ns == 30_482_612  # 243,860,896 bytes at 8 GB/s
    assert costs.latency_ns == 1000
    assert Costs.of(Hardware(), 10**12).up_ns == 0
