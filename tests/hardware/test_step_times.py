"""Times of minibatches: streams of their own, the stated distributions and speeds, and slow phases against theory."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from asgd_lab import streams
from asgd_lab.errors import ScenarioError
from asgd_lab.hardware.step_times import BLOCK, BLOCKS, Phases, StepTimes, group_of, mean_step_s, speed_of
from asgd_lab.scenario.hardware import Compute, Hardware, SlowPhases

SECOND = 10**9
LOG = math.sqrt(math.log1p(0.25))
DISTRIBUTIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "constant": ({"step_s": 0.002}, None),
    "exponential": ({"distribution": "exponential", "step_s": 0.002}, stats.expon(scale=0.002)),
    "lognormal": (
        {"distribution": "lognormal", "cv": 0.5, "step_s": 0.002},
        stats.lognorm(LOG, scale=0.002 / math.exp(LOG**2 / 2)),
    ),
    "gamma": ({"distribution": "gamma", "cv": 0.5, "step_s": 0.002}, stats.gamma(4, scale=0.0005)),
    "a wide gamma": ({"distribution": "gamma", "cv": 1.5, "step_s": 0.002}, stats.gamma(1.5**-2, scale=0.002 * 1.5**2)),
    "empirical": ({"distribution": "empirical", "samples_s": [0.001, 0.002, 0.003]}, None),
}
CONFIGS = {name: config for name, (config, _) in DISTRIBUTIONS.items()}
PHASES = {"every_s": 0.5, "length_s": 0.2, "factor": 3.5}


def times(config: dict[str, Any], worker: int = 0, **more: Any) -> StepTimes:
    return StepTimes(Compute.model_validate(config), seed=7, worker=worker, **more)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("slow", [None, PHASES], ids=["steady", "slow phases"])
@settings(max_examples=10)
@given(rounds=st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=5))
def test_how_a_stream_is_cut_into_rounds_does_not_change_it(
    config: dict[str, Any], slow: dict[str, float] | None, rounds: list[int]
) -> None:
    """Rounds that follow one another at once, asked for by their totals, end when the minibatches of one long one do.

    In slow phases each question is rounded to the nanosecond.
    """
    more = {"slow_phases": None if slow is None else SlowPhases.model_validate(slow)}
    by_round = times(config, **more)
    whole = times(config, **more).ends_ns(sum(rounds))
    now, last = 0, 0
    for steps in rounds:
        now += by_round.total_ns(steps, now)
        last += steps
        assert abs(now - whole[last - 1]) <= (0 if slow is None else 4 * len(rounds))


@pytest.mark.parametrize("name", [name for name, (_, law) in DISTRIBUTIONS.items() if law is not None])
def test_drawn_times_have_the_stated_mean_and_distribution(name: str) -> None:
    """Kolmogorov and Smirnov, at a fixed seed: it passes or fails for good."""
    config, law = DISTRIBUTIONS[name]
    drawn = np.diff(times(config).ends_ns(20_000), prepend=0) / 1e9
    assert law.mean() == pytest.approx(0.002)
    assert law.std() / law.mean() == pytest.approx(config.get("cv", 1.0))
    assert stats.kstest(drawn, law.cdf).pvalue > 0.01


def test_samples_are_drawn_with_equal_chances() -> None:
    """Pearson's chi-square."""
    drawn = np.diff(times(CONFIGS["empirical"]).ends_ns(9_000), prepend=0)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [10**6, 2 * 10**6, 3 * 10**6]
    assert stats.chisquare(counts).pvalue > 0.01


def test_a_gamma_of_any_width_takes_a_nanosecond_at_least() -> None:
    drawn = np.diff(times({"distribution": "gamma", "cv": 30.0, "step_s": 1e-6}).ends_ns(5_000), prepend=0)
    assert drawn.min() == 1


def test_workers_draw_from_streams_of_their_own() -> None:
    config = CONFIGS["exponential"]
    a, b = (np.diff(times(config, worker).ends_ns(2000)) for worker in (0, 1))
    assert abs(stats.spearmanr(a, b).statistic) < 0.08


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_faster_worker_has_the_same_times_divided_by_its_speed(config: dict[str, Any]) -> None:
    slow, fast = (np.diff(times(config, speed=speed).ends_ns(500), prepend=0) for speed in (1.0, 4.0))
    assert np.abs(slow - 4 * fast).max() <= 4


def test_drawing_ahead_changes_no_time() -> None:
    one, other = times(CONFIGS["gamma"]), times(CONFIGS["gamma"])
    other.draw_ahead()
    assert one.ends_ns(50) == other.ends_ns(50)


def test_a_device_without_a_step_time_is_refused_by_key() -> None:
    with pytest.raises(ScenarioError) as caught:
        mean_step_s(Compute())
    assert caught.value.key == "hardware.compute.step_s"
    assert mean_step_s(Compute(), stated_step_s=0.5) == 0.5


# ---------------------------------------------------------------- who is how fast


def hardware(**parts: Any) -> Hardware:
    return Hardware.model_validate(parts)


def test_speeds_are_repeated_in_turn() -> None:
    assert speed_of(hardware(), 3) == [1.0, 1.0, 1.0]
    assert speed_of(hardware(speeds=[1.0, 0.5]), 5) == [1.0, 0.5, 1.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([2, 1, 2], [0, 0, 1, 2, 2]),
        ([2, None], [0, 0, 1, 1, 1]),
        ([None, 3], [0, 0, 1, 1, 1]),
        ([1, None, 1], [0, 1, 1, 1, 2]),
        ([5, None], [0, 0, 0, 0, 0]),
    ],
)
def test_groups_take_the_workers_in_order_and_one_takes_the_rest(sizes: list[int | None], groups: list[int]) -> None:
    named = [{"name": f"g{index}", "workers": size} for index, size in enumerate(sizes)]
    assert group_of(hardware(groups=named), 5) == groups


def test_without_groups_nobody_is_in_one() -> None:
    assert group_of(hardware(), 3) == [-1, -1, -1]


def test_a_workers_speed_is_its_own_times_its_groups() -> None:
    groups = [{"name": "old", "workers": 1, "speed": 0.25}, {"name": "new", "speed": 2.0}]
    assert speed_of(hardware(speeds=[1.0, 3.0], groups=groups), 4) == [0.25, 6.0, 2.0, 6.0]


def test_all_workers_have_times_of_their_speeds_streams_and_phases() -> None:
    stated = hardware(
        compute=CONFIGS["lognormal"], speeds=[1.0, 2.0], groups=[{"name": "g", "speed": 0.5}], slow_phases=PHASES
    )
    found = StepTimes.all(stated, seed=7, workers=3)
    for worker, speed in enumerate([0.5, 1.0, 0.5]):
        alone = times(CONFIGS["lognormal"], worker, speed=speed, slow_phases=stated.slow_phases)
        assert found[worker].ends_ns(300, 1000) == alone.ends_ns(300, 1000)


def test_what_is_drawn_ahead_is_bounded_over_all_workers() -> None:
    """And how much is drawn at once changes no time."""
    stated = hardware(compute=CONFIGS["exponential"])
    few, many = StepTimes.all(stated, 7, 1), StepTimes.all(stated, 7, 20_000)
    assert many[0]._block * 20_000 <= BLOCKS
    assert [few[0].total_ns(3) for _ in range(40)] == [many[0].total_ns(3) for _ in range(40)]


# ---------------------------------------------------------------- slow phases


def changes(config: SlowPhases, seed: int, worker: int, until: int) -> list[int]:
    """When each phase begins, drawn again from the stream that is stated for it."""
    random = streams.generator(seed, worker, "phases")
    found = [0]
    while found[-1] <= until:
        mean_s = config.length_s if len(found) % 2 == 0 else config.every_s
        found.append(found[-1] + max(1, round(random.exponential(mean_s) * 1e9)))
    return found


def brute_force(config: SlowPhases, begins: list[int], begun: int, work: int) -> Fraction:
    """How long the work takes: piece by piece of constant speed, in exact fractions."""
    now, left = Fraction(begun), Fraction(work)
    factor = Fraction(config.factor)
    for phase, (begin, end) in enumerate(itertools.pairwise(begins)):
        if end <= now:
            continue
        assert begin <= now
        slowness = factor if phase % 2 else Fraction(1)
        if left * slowness <= end - now:
            return now + left * slowness - begun
        left -= (end - now) / slowness
        now = Fraction(end)
    raise AssertionError("too few phases")


@given(
    every_ms=st.integers(1, 300),
    length_ms=st.integers(1, 300),
    factor=st.sampled_from([1.25, 2.0, 7.3]),
    seed=st.integers(0, 99),
    rounds=st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**9)), min_size=1, max_size=8),
)
@settings(max_examples=100)
def test_work_in_slow_phases_takes_as_long_as_its_pieces(
    every_ms: int, length_ms: int, factor: float, seed: int, rounds: list[tuple[int, int]]
) -> None:
    """To a nanosecond, for rounds with pauses in between, which are asked for in order."""
    config = SlowPhases(every_s=every_ms / 1000, length_s=length_ms / 1000, factor=factor)
    phases = Phases(config, seed, 3)
    begins = changes(config, seed, 3, 10**11)
    now = 0
    for pause, work in rounds:
        now += pause
        exact = brute_force(config, begins, now, work)
        found = phases.stretched_ns(now, work)
        assert abs(found - exact) <= 1
        assert work - 1 <= found <= work * factor + 1
        now += found


def test_phases_are_forgotten_only_when_they_are_past() -> None:
    """Over hundreds of phases, and for the minibatches of one round, which all count from its beginning."""
    config = SlowPhases(every_s=0.01, length_s=0.01, factor=3.0)
    phases, begins = Phases(config, 1, 0), changes(config, 1, 0, 20 * SECOND)
    for begun in range(0, 10 * SECOND, SECOND // 3):
        for work in (10**5, 10**8, 10**7):
            assert abs(phases.stretched_ns(begun, work) - brute_force(config, begins, begun, work)) <= 1
    assert len(phases._changes) < 200


@pytest.mark.parametrize(("every_s", "length_s", "factor"), [(5.0, 2.0, 4.0), (1.0, 3.0, 2.0)])
def test_slow_phases_slow_by_their_share_of_the_time(every_s: float, length_s: float, factor: float) -> None:
    """Renewal reward (Ross 1996, section 3.6): speed v = (1-p) + p/f in the long run, p = L/(E+L). z over workers.

    A Markov chain of two states with r = 1/E + 1/L that begins fast: the work done by T has the mean
    vT + (1-v)(1-e^-rT)/r and the variance 2p(1-p)(1-1/f)^2 (T/r - (1-e^-rT)/r^2).
    """
    config = SlowPhases(every_s=every_s, length_s=length_s, factor=factor)
    workers, end, quantum = 40, 1500 * SECOND, SECOND // 50
    done = []
    for worker in range(workers):
        phases, now, work = Phases(config, 5, worker), 0, 0
        while now < end:
            step = quantum if end - now < 20 * quantum else SECOND // 2
            now += phases.stretched_ns(now, step)
            work += step
        done.append(work / SECOND)
    p, rate, time = length_s / (every_s + length_s), 1 / every_s + 1 / length_s, end / SECOND
    speed = (1 - p) + p / factor
    faded = (1 - math.exp(-rate * time)) / rate
    mean = speed * time + (1 - speed) * faded
    variance = 2 * p * (1 - p) * (1 - 1 / factor) ** 2 * (time - faded) / rate
    z = (float(np.mean(done)) - mean) / math.sqrt(variance / workers)
    assert 2 * stats.norm.sf(abs(z)) > 0.001


def test_phases_too_many_to_draw_are_refused() -> None:
    phases = SlowPhases(every_s=1e-9, length_s=1e-9, factor=2.0)
    with pytest.raises(ScenarioError, match="may meet over 10,000 phases of 2e-09 s each"):
        StepTimes(Compute(step_s=1.0), 0, 0, slow_phases=phases)


def test_times_beyond_64_bits_are_refused() -> None:
    times = StepTimes(Compute(distribution="lognormal", cv=900.0, step_s=1e8), 0, 0)
    with pytest.raises(ScenarioError, match="lower step_s or cv"):
        times.total_ns(1)


def test_a_speed_of_next_to_nothing_is_refused() -> None:
    with pytest.raises(ScenarioError, match="a minibatch takes inf s at speed 1e-300; it may take 1e\\+09 s"):
        StepTimes(Compute(step_s=1e9), 0, 0, speed=1e-300)
