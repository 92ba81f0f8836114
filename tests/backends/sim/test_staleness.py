"""Staleness: Little's law for versions, and the laws of its distribution where they are known."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from asgd_lab.scenario.hardware import Compute
from tests.backends.sim.laws import (
    EXPONENTIAL,
    SECOND,
    Ints,
    accept,
    batch_means_p,
    geometric_from_0,
    normal_p,
    pooled_chi_square_p,
    staleness,
    timing_run,
)
from tests.backends.virtual import TIMING, scenario, simulate


@pytest.mark.parametrize("workers", [1, 2, 5, 16])
@pytest.mark.parametrize("n_sync", [1, 3])
@pytest.mark.parametrize("server_s", [0.0, 0.5])
def test_deterministic_identical_workers_are_exactly_m_minus_1_stale(
    workers: int, n_sync: int, server_s: float
) -> None:
    """Little's law for versions. All start from version 0 at once, so that only their first pushes are less stale."""
    run = timing_run(workers, 20 * workers, {"server": {"push_s": server_s}}, n_sync=n_sync)
    assert staleness(run)[:workers].tolist() == list(range(workers))
    assert set(staleness(run)[workers:]) == {workers - 1}


distributions = st.one_of(
    st.just({}),
    st.just({"distribution": "exponential"}),
    st.builds(
        lambda name, cv: {"distribution": name, "cv": cv},
        st.sampled_from(["lognormal", "gamma"]),
        st.sampled_from([0.1, 1.0, 3.0]),
    ),
)
devices = st.builds(
    lambda step_s, how: Compute.model_validate({"step_s": step_s, **how}),
    st.sampled_from([0.5, 1.0, 7.3]),
    distributions,
)


@given(
    computes=st.lists(devices, min_size=1, max_size=6),
    speeds=st.lists(st.sampled_from([0.3, 1.0, 2.0]), min_size=1, max_size=3),
    slow=st.booleans(),
    n_sync=st.integers(1, 3),
    server=st.sampled_from([(0.0, "constant"), (0.01, "constant"), (2.0, "constant"), (0.3, "exponential")]),
    seed=st.integers(0, 99),
)
@settings(max_examples=50)
def test_without_gaps_mean_staleness_is_m_minus_1_whatever_the_distributions_and_speeds(
    computes: list[Compute],
    speeds: list[float],
    slow: bool,
    n_sync: int,
    server: tuple[float, str],
    seed: int,
) -> None:
    """1 + mean staleness = X * E[time from read to apply] = M, whatever the speeds (Little 1961).

    On a finite run of N versions it is an identity once what is still under way at the end is counted up to the end:
    both sides are M then. Counted over finished pushes only, the mean falls short of M - 1 by what is under way, which
    is computed here as well, and tends to 0 as N grows.
    """
    updates, workers = 60, len(computes)
    hardware: dict[str, object] = {"server": {"push_s": server[0], "distribution": server[1]}, "speeds": speeds}
    if slow:
        hardware["slow_phases"] = {"every_s": 5.0, "length_s": 3.0, "factor": 4.0}
    stated = scenario(TIMING, {"name": "asgd", "n_sync": n_sync}, workers, {"updates": updates}, hardware, seed=seed)
    run = simulate(stated, computes=computes)
    applies, fetches = run.applies, run.rows("fetch")
    ends = np.concatenate([[0], applies["end_s"].to_numpy()])  # when each version was made
    assert (fetches["start_s"] == fetches["end_s"]).all()
    assert (fetches["end_s"].to_numpy() == ends[fetches["version"]]).all(), "all read at the moment of their own apply"
    versions = applies["version"].to_numpy()
    assert versions.tolist() == list(range(1, updates + 1))
    bases = versions - 1 - applies["staleness"].to_numpy()
    under_way = fetches.groupby("worker")["version"].max()
    finished = under_way.isin(bases[-1:]) & (under_way == bases[-1])
    under_way = under_way[~finished.to_numpy()].to_numpy()  # the last push ended the run
    assert len(under_way) == workers - 1

    unfinished = int((updates - under_way).sum())
    assert (versions - bases).sum() + unfinished == workers * updates
    assert staleness(run).sum() == (workers - 1) * updates - unfinished, "M - 1 in the mean, but for the end"
    elapsed = (ends[versions] - ends[bases]).sum() + (ends[-1] - ends[under_way]).sum()
    assert elapsed == workers * ends[-1]

    rate = updates / ends[-1]
    from_time = rate * (ends[versions] - ends[bases]).mean()
    assert from_time + rate * (ends[-1] - ends[under_way]).sum() / updates == pytest.approx(workers)


@pytest.mark.parametrize("distribution", ["exponential", "gamma", "lognormal"])
def test_without_gaps_mean_staleness_tends_to_m_minus_1_with_unequal_speeds(distribution: str) -> None:
    """The same law as a limit: what the end cuts off is at most M^2 versions' worth, of N = 6,000."""
    workers, updates = 6, 6_000
    compute = {"distribution": distribution} | ({} if distribution == "exponential" else {"cv": 1.5})
    run = timing_run(workers, updates, {"compute": compute, "speeds": [0.2, 1.0, 3.0], "server": {"push_s": 0.02}})
    assert staleness(run).mean() == pytest.approx(workers - 1, abs=5 * workers**2 / updates)


@given(
    workers=st.integers(1, 6),
    latency_s=st.sampled_from([0.0, 0.1, 3.0]),
    server_s=st.sampled_from([0.0, 0.2]),
    distribution=st.sampled_from(["exponential", "lognormal"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_staleness_is_the_number_of_versions_between_the_read_and_the_apply(
    workers: int, latency_s: float, server_s: float, distribution: str, seed: int
) -> None:
    """The definition of staleness, recounted from the effects' times, with every kind of gap."""
    hardware = {
        "compute": {"distribution": distribution},
        "link": {"latency_s": latency_s},
        "client": {"fetch_s": 0.05},
        "server": {"push_s": server_s},
    }
    run = timing_run(workers, 80, hardware, seed)
    latency_ns = round(latency_s * SECOND)
    made = run.applies["end_s"].to_numpy()
    all_fetches, all_pushes = run.rows("fetch"), run.rows("push")
    for worker in range(workers):
        fetches = all_fetches[all_fetches["worker"] == worker].set_index("round")
        pushes = all_pushes[all_pushes["worker"] == worker].set_index("round")
        fetches = fetches.loc[pushes.index]
        read = fetches["start_s"] + latency_ns + fetches["wait_s"]
        ends = pushes["end_s"]
        applied = ends.where(ends == run.outcome.makespan_ns, ends - latency_ns)  # the last one ends the run
        # No two versions fall into one nanosecond here, except a worker's read into its own apply.
        between = [int(((made > r) & (made < a)).sum()) for r, a in zip(read, applied, strict=True)]
        assert between == pushes["staleness"].tolist()
        assert (made[pushes["version"] - 1] == applied).all()


def test_a_gap_lowers_staleness_and_the_time_from_read_to_apply_even_more() -> None:
    """With a gap g between apply and next read, that formula holds no longer "in every run".

    Workers that meet no queue are independent of one another, so whoever applies finds each of the M - 1 others between
    its read and its apply with the probability Z/(Z+g): the mean staleness is (M-1)Z/(Z+g) (what the arrival theorem
    says for this closed network). Little's law counts in time: X * E[read to apply] = M*Z/(Z+g), which falls short of
    1 + staleness by g/(Z+g). One worker shows it: staleness 0, and 0 = Z/(Z+g) - 1 only without a gap.
    """
    workers, latency_s = 4, 0.25
    gap = 2 * latency_s  # from the server's answer to a push, to the worker, and its next fetch to the server
    hardware = {"compute": {"distribution": "exponential"}, "link": {"latency_s": latency_s}}
    flight = 1.0 + 2 * latency_s  # the answer to a fetch, the minibatch, the push
    run = timing_run(workers, 12_000, hardware)
    expected = (workers - 1) * flight / (flight + gap)
    accept(batch_means_p(staleness(run)[100:].astype(float), expected))  # t, 19 degrees of freedom
    # One worker, no chance: staleness 0 in every run, X * E[time from read to apply] = 1.5/2.
    alone = timing_run(1, 50, {"link": {"latency_s": latency_s}})
    assert set(staleness(alone)) == {0}
    ends = alone.applies["end_s"].to_numpy()
    reads = alone.rows("fetch")["start_s"].to_numpy() + round(latency_s * SECOND)
    assert (ends - reads == 1.5 * SECOND).all()
    assert (np.diff(ends) == 2 * SECOND).all()


@pytest.fixture(scope="module", params=[3, 8], ids=["3 workers", "8 workers"])
def thinned_staleness(request: pytest.FixtureRequest) -> tuple[int, Ints]:
    """(M, independent samples of staleness) of identical exponential workers without a gap.

    Staleness is autocorrelated along a run: a worker that was passed over makes the others' staleness small and then
    has a large one. But exponential workers forget, so that the workers of successive versions are drawn independently
    and uniformly, and the staleness of a version is the number of draws since its worker's last one. Cut at K - 1, it
    is a function of its K latest draws alone. So samples taken every K versions and cut there depend on disjoint sets
    of draws: they are exactly independent. With K = 10 M a cut befalls one sample in e^10.
    """
    workers: int = request.param
    apart = 10 * workers
    run = timing_run(workers, 40_000, EXPONENTIAL, seed=1)
    return workers, np.minimum(staleness(run)[2 * apart :: apart], apart - 1)


def test_staleness_of_exponential_workers_is_geometric(thinned_staleness: tuple[int, Ints]) -> None:
    """P(k) = (1/M)(1-1/M)^k. Pearson's chi-square over cells with at least 8 expected, the tail pooled."""
    workers, samples = thinned_staleness
    accept(pooled_chi_square_p(samples, geometric_from_0(workers - 1)))


def test_staleness_of_exponential_workers_has_variance_m_times_m_minus_1(thinned_staleness: tuple[int, Ints]) -> None:
    """z of the mean of (k - (M-1))^2, whose own variance comes from the geometric law's fourth moment."""
    workers, samples = thinned_staleness
    n, mean, variance = len(samples), workers - 1, workers * (workers - 1)
    excess = float(stats.geom(1 / workers).stats("k"))
    accept(normal_p(((samples - mean) ** 2).mean(), variance, variance * math.sqrt((excess + 2) / n)))
    accept(normal_p(samples.mean(), mean, math.sqrt(variance / n)))
