"""The simulator against theory: what queueing, staleness and stability must be in its runs.

Deterministic claims are tested exactly, in nanoseconds or versions. A claim about random runs is a test of a stated
statistic at level 0.001, over seeds that are fixed: it passes or fails for good. All p-values are two-sided.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from scipy import stats

from asgd_lab.backends.sim.clock import Alarm, Clock, Timer
from asgd_lab.backends.sim.servers import Fcfs, Gauge, OnCores, Services
from asgd_lab.backends.sim.sharing import Capacity, Sharing
from asgd_lab.scenario.hardware import Compute
from asgd_lab.tasks import expected_loss
from tests.backends.virtual import TIMING, Run, scenario, simulate

LEVEL = 0.001
SECOND = 10**9
Floats = npt.NDArray[np.float64]

EXPONENTIAL = {"compute": {"distribution": "exponential"}}


def timing_run(workers: int, updates: int, hardware: dict[str, object], seed: int = 0, **algorithm: object) -> Run:
    """A-SGD over minibatches that take a second in the mean, unless the algorithm is another."""
    algorithm = {"name": "asgd", "n_sync": 1} | algorithm
    return simulate(scenario(TIMING, algorithm, workers, {"updates": updates}, hardware, seed=seed))


def staleness(run: Run) -> npt.NDArray[np.int64]:
    """Of each version, in order."""
    return run.applies["staleness"].to_numpy()


def batch_means_p(samples: Floats, expected: float, batches: int = 20) -> float:
    """Student's t over means of long batches, which are nearly independent though their samples are not."""
    length = len(samples) // batches
    means = samples[: batches * length].reshape(batches, length).mean(axis=1)
    return float(stats.ttest_1samp(means, expected).pvalue)


# ---------------------------------------------------------------- 3.1 stability under delay


def growth(workers: int, n_sync: int, step: float, scaled: bool = False, versions: int = 1200) -> float:
    """By what factor a version changes the parameter, of a noiseless quadratic with lr*h = `step`, in the long run.

    The workers are identical and deterministic, so that they go round robin with a delay of M - 1 versions. The rate is
    that of the root mean square over windows of several periods, in the second half of the run.
    """
    task = {"name": "quadratic", "curvature": [1.0], "optimizer": {"name": "SGD", "lr": step}}
    algorithm = {"name": "asgd", "n_sync": n_sync, "rule": ["scale" if scaled else "add"]}
    stated = scenario(
        task, algorithm, workers, {"updates": versions},
        evaluate={"every_minibatches": n_sync}, hardware={"compute": {"step_s": 0.001}},
    )  # fmt: skip
    run = simulate(stated)
    rows = [row for row in run.simulation.record.evals if row[3] == "server"]  # type: ignore[attr-defined]
    losses = np.array([value for *_, value in rows])[: versions + 1]
    window = versions // 4
    early, late = losses[-2 * window : -window].mean(), losses[-window:].mean()
    return float((late / early) ** (0.5 / window))


def dominant_root(workers: int, a: float) -> float:
    """The largest modulus of the roots of z^(t+1) = z^t - a with t = M - 1: w+ = w - a*w_{-t}."""
    polynomial = [1.0, -1.0, *[0.0] * (workers - 2), a] if workers > 1 else [1.0, a - 1.0]
    return float(np.abs(np.roots(polynomial)).max())


def critical(workers: int) -> float:
    """Constant delay on a quadratic: stable iff a < 2 sin(pi / (2(2t+1))), t = M - 1."""
    return 2 * math.sin(math.pi / (2 * (2 * workers - 1)))


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 40])
def test_the_stability_bound_is_where_the_characteristic_roots_leave_the_unit_circle(workers: int) -> None:
    """Constant delay on a quadratic itself, before runs are held against it."""
    assert dominant_root(workers, critical(workers)) == pytest.approx(1, abs=1e-9)
    assert dominant_root(workers, 0.999 * critical(workers)) < 1 < dominant_root(workers, 1.001 * critical(workers))


@pytest.mark.parametrize(("workers", "n_sync"), [(2, 1), (3, 1), (4, 2), (8, 1), (8, 5)])
def test_whole_deltas_in_round_robin_are_stable_just_below_the_bound_and_unstable_just_above(
    workers: int, n_sync: int
) -> None:
    """Stable iff 1 - (1 - lr*h)^n < 2 sin(pi / (2(2M-1))); the growth rate is that of the largest root."""
    for factor in (0.97, 1.03):
        a = factor * critical(workers)
        assert a < 1 or n_sync == 1
        step = 1 - (1 - a) ** (1 / n_sync) if n_sync > 1 else a
        rate = growth(workers, n_sync, step)
        assert (rate < 1) == (factor < 1)
        assert rate == pytest.approx(dominant_root(workers, a), abs=3e-4)


@pytest.mark.parametrize("n_sync", [1, 4])
def test_deltas_divided_by_the_workers_are_stable_where_whole_deltas_are_not(n_sync: int) -> None:
    """Pushing delta/M is stable for every lr*h <= 1, and for even n; 1.9 with n = 1 and M = 8 is not."""
    assert growth(8, n_sync, 0.5, scaled=True, versions=400) < 1 < growth(8, n_sync, 0.5, versions=400)
    assert growth(8, n_sync, 1.0, scaled=True, versions=400) < 1
    assert (growth(8, n_sync, 1.9, scaled=True, versions=400) < 1) == (n_sync == 4)


# ---------------------------------------------------------------- 3.2 staleness


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
    st.builds(lambda cv: {"distribution": "lognormal", "cv": cv}, st.sampled_from([0.1, 1.0, 3.0])),
)
devices = st.builds(
    lambda step_s, how: Compute.model_validate({"step_s": step_s, **how}),
    st.sampled_from([0.5, 1.0, 7.3]),
    distributions,
)


@given(
    computes=st.lists(devices, min_size=1, max_size=6),
    n_sync=st.integers(1, 3),
    server_s=st.sampled_from([0.0, 0.01, 2.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_without_gaps_littles_law_holds_on_every_run(
    computes: list[Compute], n_sync: int, server_s: float, seed: int
) -> None:
    """1 + mean staleness = X * E[time from read to apply], whatever the speeds, from the effects alone.

    On a finite run it is an identity once what is still under way at the end is counted up to the end: both sides are M
    then. Counted over finished pushes only, as the formula says, they differ by what is under way: under M^2/N.
    """
    updates, workers = 60, len(computes)
    stated = scenario(
        TIMING, {"name": "asgd", "n_sync": n_sync}, workers, {"updates": updates},
        {"server": {"push_s": server_s}}, seed=seed,
    )  # fmt: skip
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

    counted = (versions - bases).sum() + (updates - under_way).sum()
    assert counted == workers * updates
    elapsed = (ends[versions] - ends[bases]).sum() + (ends[-1] - ends[under_way]).sum()
    assert elapsed == workers * ends[-1]

    rate = updates / ends[-1]
    from_time = rate * (ends[versions] - ends[bases]).mean()
    assert from_time + rate * (ends[-1] - ends[under_way]).sum() / updates == pytest.approx(workers)
    assert (1 + staleness(run)).mean() == pytest.approx(workers - (updates - under_way).sum() / updates)


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
        applied = pushes["end_s"] - latency_ns
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
    assert batch_means_p(staleness(run)[100:].astype(float), expected) > LEVEL  # t, 19 degrees of freedom
    # One worker, no chance: staleness 0 in every run, X * E[time from read to apply] = 1.5/2.
    alone = timing_run(1, 50, {"link": {"latency_s": latency_s}})
    assert set(staleness(alone)) == {0}
    ends = alone.applies["end_s"].to_numpy()
    reads = alone.rows("fetch")["start_s"].to_numpy() + round(latency_s * SECOND)
    assert (ends - reads == 1.5 * SECOND).all()
    assert (np.diff(ends) == 2 * SECOND).all()


@pytest.fixture(scope="module", params=[3, 8], ids=["3 workers", "8 workers"])
def thinned_staleness(request: pytest.FixtureRequest) -> tuple[int, npt.NDArray[np.int64]]:
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


def test_staleness_of_exponential_workers_is_geometric(thinned_staleness: tuple[int, npt.NDArray[np.int64]]) -> None:
    """P(k) = (1/M)(1-1/M)^k. Pearson's chi-square over cells with at least 8 expected, the tail pooled."""
    workers, samples = thinned_staleness
    law = stats.geom(1 / workers, loc=-1)
    cells = 1
    while law.sf(cells) * len(samples) >= 8:
        cells += 1
    observed = np.bincount(np.minimum(samples, cells), minlength=cells + 1)
    expected = len(samples) * np.append(law.pmf(np.arange(cells)), law.sf(cells - 1))
    assert stats.chisquare(observed, expected).pvalue > LEVEL


def test_staleness_of_exponential_workers_has_variance_m_times_m_minus_1(
    thinned_staleness: tuple[int, npt.NDArray[np.int64]],
) -> None:
    """z of the mean of (k - (M-1))^2, whose own variance comes from the geometric law's fourth moment."""
    workers, samples = thinned_staleness
    mean, variance, excess = workers - 1, workers * (workers - 1), float(stats.geom(1 / workers).stats("k"))
    z = (((samples - mean) ** 2).mean() - variance) / (variance * math.sqrt((excess + 2) / len(samples)))
    assert 2 * stats.norm.sf(abs(z)) > LEVEL
    z = (samples.mean() - mean) / math.sqrt(variance / len(samples))
    assert 2 * stats.norm.sf(abs(z)) > LEVEL


# ---------------------------------------------------------------- 3.3 throughput


@given(workers=st.integers(1, 12), think_ms=st.integers(1, 400), service_ms=st.integers(1, 100), n=st.integers(1, 3))
@settings(max_examples=40)
def test_deterministic_throughput_is_exactly_the_bound(workers: int, think_ms: int, service_ms: int, n: int) -> None:
    """Machine repairman: X = min(M/(Z+S), 1/S) where both are deterministic: M versions take max(Z+S, M*S), exactly."""
    hardware = {"compute": {"step_s": think_ms / 1000}, "server": {"push_s": service_ms / 1000}}
    stated = scenario(
        TIMING | {"step_s": think_ms / 1000}, {"name": "asgd", "n_sync": n}, workers, {"updates": 60}, hardware
    )
    ends = simulate(stated).applies["end_s"].to_numpy()
    period = max(n * think_ms + service_ms, workers * service_ms) * 10**6
    assert set(ends[2 * workers :] - ends[workers:-workers]) == {period}


def machine_repairman(workers: int, think: float, service: float) -> float:
    """Throughput of M workers with exponential think times before one server with *constant* service (M/D/1//M).

    Known for exponential service; the simulator's is constant. Exact all the same: let k be how
    many a departure leaves at the server. The next departure comes S later, after a wait for the first arrival, of mean
    Z/M, if k = 0; meanwhile each worker away arrives with probability 1 - exp(-S/Z) (Takacs 1962, chapter 5).
    """
    arrives = 1 - math.exp(-service / think)
    transition = np.zeros((workers, workers))
    for left in range(workers):
        present = max(left, 1)  # when the service starts
        for arrivals in range(workers - present + 1):
            transition[left, present - 1 + arrivals] = stats.binom(workers - present, arrives).pmf(arrivals)
    system = np.vstack([transition.T - np.eye(workers), np.ones(workers)])
    stationary = np.linalg.lstsq(system, np.append(np.zeros(workers), 1), rcond=None)[0]
    return float(1 / (service + stationary[0] * think / workers))


@pytest.mark.parametrize(("workers", "service"), [(1, 0.5), (2, 1.0), (4, 0.25), (8, 0.125), (16, 0.25)])
def test_throughput_with_exponential_workers_is_that_of_the_machine_repairman(workers: int, service: float) -> None:
    """Machine repairman with constant service. Batch means of the times between versions; t with 19 degrees of freedom.

    The case of 16 workers is saturated to 1 in 10^4, and has hardly any variance left.
    """
    run = timing_run(workers, 10_000, EXPONENTIAL | {"server": {"push_s": service}}, seed=2)
    ends = run.applies["end_s"].to_numpy() / SECOND
    exact = machine_repairman(workers, 1.0, service)
    bound = min(workers / (1 + service), 1 / service)
    assert exact <= bound * (1 + 1e-12)
    between = np.diff(ends)[200:]
    if exact * service > 0.999:
        assert 1 / between.mean() == pytest.approx(exact, rel=1e-3)
    else:
        assert batch_means_p(between, 1 / exact) > LEVEL
    assert 1 / between.mean() <= 1 / service


def test_throughput_tends_to_the_workers_where_the_server_is_idle_and_to_the_server_where_it_is_not() -> None:
    """Machine repairman, asymptotics: one worker has X = 1/(Z+S); many have 1/S."""
    assert machine_repairman(1, 1.0, 0.5) == pytest.approx(1 / 1.5)
    assert machine_repairman(60, 1.0, 0.5) == pytest.approx(2.0)
    run = timing_run(60, 2_000, EXPONENTIAL | {"server": {"push_s": 0.5}})
    assert set(np.diff(run.applies["end_s"].to_numpy())[100:]) == {SECOND // 2}


@given(
    workers=st.integers(1, 6),
    push_s=st.sampled_from([0.0, 0.05, 0.4]),
    fetch_s=st.sampled_from([0.0, 0.1]),
    latency_s=st.sampled_from([0.0, 0.2]),
    distribution=st.sampled_from(["constant", "exponential", "lognormal"]),
    algorithm=st.sampled_from(
        [
            {"name": "asgd", "n_fetch": 2, "n_push": 3},
            {"name": "sync_sgd", "n_sync": 2},
            {"name": "ssp", "n_sync": 1, "bound": 1},
        ]
    ),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_the_servers_utilisation_is_throughput_times_service(
    workers: int,
    push_s: float,
    fetch_s: float,
    latency_s: float,
    distribution: str,
    algorithm: dict[str, object],
    seed: int,
) -> None:
    """The utilisation law, in every run: U = X_push*S_push + X_fetch*S_fetch, served one at a time."""
    hardware = {
        "compute": {"distribution": distribution},
        "link": {"latency_s": latency_s},
        "server": {"push_s": push_s, "fetch_s": fetch_s},
    }
    run = simulate(scenario(TIMING, algorithm, workers, {"minibatches": 80}, hardware, seed=seed))
    applies, grants = run.applies, run.rows("grant")
    in_time = grants["end_s"] <= run.outcome.makespan_ns  # the fetches that are told to leave come after the run's end
    busy = len(applies) * push_s + in_time.sum() * fetch_s
    assert run.utilisation() * run.outcome.makespan_ns / SECOND == pytest.approx(busy, abs=1e-9)
    served = run.effects[run.effects["worker"] == -1].sort_values(["start_s", "end_s"])
    served = served[served["end_s"] > served["start_s"]]  # what costs nothing does not queue (see queue.py)
    assert (served["start_s"].to_numpy()[1:] >= served["end_s"].to_numpy()[:-1]).all(), "one at a time"


def test_the_server_is_never_busier_than_always() -> None:
    hardware = {"server": {"push_s": 0.1, "fetch_s": 1.0}}
    run = simulate(scenario(TIMING | {"step_s": 0.01}, workers=4, budget={"minibatches": 4}, hardware=hardware))
    assert run.utilisation() <= 1


@pytest.mark.parametrize("budget", [{"updates": 1}, {"seconds": 1.0}], ids=str)
def test_workers_are_never_busier_than_always(budget: dict[str, float]) -> None:
    run = simulate(scenario(workers=2, budget=budget))
    assert run.summary()["utilisation"]["workers"] <= 1


def test_a_round_takes_the_sum_of_its_stated_costs() -> None:
    """The head of simulation.py: latency, service, latency and transfer, client; minibatches; and back."""
    hardware = {
        "compute": {"step_s": 1.0},
        "client": {"push_s": 0.01, "fetch_s": 0.02},
        "link": {"latency_s": 0.003, "bandwidth_bytes_per_s": 1e6},
        "server": {"push_s": 0.0004, "fetch_s": 0.0005},
    }
    task = TIMING | {"size_bytes": 100_000}
    run = simulate(scenario(task, {"name": "asgd", "n_sync": 5}, 1, {"updates": 10}, hardware))
    expected = round((5 * 1.0 + 0.01 + 0.02 + 4 * 0.003 + 2 * 0.1 + 0.0004 + 0.0005) * SECOND)
    assert set(np.diff(run.applies["end_s"].to_numpy())) == {expected}


# ---------------------------------------------------------------- 3.4, 3.5 who waits


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_lock_step_round_of_exponential_workers_takes_h_m_times_the_mean(workers: int) -> None:
    """Lock-step: the mean of the largest of M, H_M = 1 + 1/2 + ... + 1/M. Rounds are independent: Student's t."""
    run = timing_run(workers, 1_500, EXPONENTIAL, seed=3, name="sync_sgd")
    ends = run.applies.groupby("version")["end_s"].max().drop(-1, errors="ignore")
    rounds = np.diff(np.concatenate([[0], ends.to_numpy()])) / SECOND
    harmonic = sum(1 / k for k in range(1, workers + 1))
    assert stats.ttest_1samp(rounds, harmonic).pvalue > LEVEL
    law = stats.kstest(rounds, lambda t: (1 - np.exp(-t)) ** workers)  # the distribution of the largest of M
    assert law.pvalue > LEVEL


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


# ---------------------------------------------------------------- 3.7 the noisy quadratic


def test_the_risk_of_plain_sgd_on_the_noisy_quadratic_is_the_closed_form() -> None:
    """Noisy quadratic (Zhang et al. 2019), through a whole simulated run: many equal coordinates are as many runs.

    Each coordinate is Gaussian with known mean and variance: the sum of squared standard scores is chi-square with P
    degrees of freedom; the risk itself by z, the variance of a squared Gaussian being 2*s^4 + 4*m^2*s^2.
    """
    h, noise, batch, lr, steps, P = 0.5, 2.0, 4, 0.3, 12, 4000
    task = {
        "name": "quadratic", "curvature": [h] * P, "noise": noise, "batch_size": batch,
        "optimizer": {"name": "SGD", "lr": lr},
    }  # fmt: skip
    run = simulate(scenario(task, {"name": "sgd", "n_sync": 3}, 1, {"minibatches": steps}))
    assert run.outcome.params is not None
    params = run.outcome.params.astype(float)
    kept = (1 - lr * h) ** steps
    variance = (1 - kept**2) * lr * noise / (batch * h * (2 - lr * h))
    assert expected_loss([h], noise, batch, lr, steps) == pytest.approx(0.5 * h * (kept**2 + variance))
    score = float((((params - kept) ** 2) / variance).sum())
    assert LEVEL / 2 < stats.chi2(P).cdf(score) < 1 - LEVEL / 2
    risk = run.outcome.final["test_loss"]
    deviation = 0.5 * h * math.sqrt(P * (2 * variance**2 + 4 * kept**2 * variance))
    z = (risk - expected_loss([h] * P, noise, batch, lr, steps)) / deviation
    assert 2 * stats.norm.sf(abs(z)) > LEVEL


# ---------------------------------------------------------------- shared cores


@pytest.mark.parametrize(("workers", "cores"), [(1, 1), (3, 2), (4, 4), (5, 4), (7, 2), (8, 3)])
def test_more_workers_than_cores_compute_as_fast_as_the_cores(workers: int, cores: int) -> None:
    """Processor sharing: C/step minibatches a second where M > C workers always compute, and M/step where M <= C."""
    run = timing_run(workers, 20 * workers, {"cores": cores})
    ends = run.applies["end_s"].to_numpy()
    rate = min(cores, workers)
    assert ends[-1] == pytest.approx(20 * workers * SECOND / rate, abs=20 * workers)


def test_random_minibatches_on_shared_cores_are_work_conserving() -> None:
    """While all M > C workers compute, the work done is C times the time, whatever the distribution."""
    run = timing_run(5, 2_000, EXPONENTIAL | {"cores": 2}, seed=5)
    again = timing_run(5, 2_000, EXPONENTIAL, seed=5)
    trains, alone = (each.rows("train") for each in (run, again))
    demand = {
        (w, r): d for w, r, d in zip(alone["worker"], alone["round"], alone["end_s"] - alone["start_s"], strict=True)
    }
    done = sum(demand[w, r] for w, r in zip(trains["worker"], trains["round"], strict=True) if (w, r) in demand)
    missing = sum((w, r) not in demand for w, r in zip(trains["worker"], trains["round"], strict=True))
    assert missing <= 60, "the two runs end with other workers ahead"
    assert done / SECOND + missing == pytest.approx(2 * run.outcome.makespan_ns / SECOND, rel=0.02)


Job = tuple[int, int]  # (arrival, demand) in nanoseconds


def completions(jobs: list[Job], count: int) -> list[int]:
    """What `Sharing` makes of jobs on `count` cores, of which one job uses one at most."""
    clock = Clock()
    cores = Sharing(clock)
    one = cores.add([Capacity("cores", count)], 1.0)
    ends = [-1] * len(jobs)

    def arrive(index: int) -> Callable[[], object]:
        def finish() -> None:
            assert ends[index] < 0
            ends[index] = clock.now

        return lambda: cores.take(one, jobs[index][1], finish)

    for index, (arrival, _) in enumerate(jobs):
        Timer(clock, arrival, arrive(index))
    clock.run()
    return ends


def exact_completions(jobs: list[Job], count: int) -> list[Fraction]:
    """Processor sharing in rational numbers, by looking at every job at every change."""
    now, left, ends = Fraction(0), dict[int, Fraction](), [Fraction(-1)] * len(jobs)
    waiting = sorted(range(len(jobs)), key=lambda index: jobs[index][0])
    while waiting or left:
        rate = Fraction(min(count, len(left)), len(left)) if left else Fraction(1)
        changes = [Fraction(jobs[waiting[0]][0])] if waiting else []
        changes += [now + min(left.values()) / rate] if left else []
        then = min(changes)
        left = {index: rest - (then - now) * rate for index, rest in left.items()}
        now = then
        for index in [index for index, rest in left.items() if rest <= 0]:
            ends[index] = now
            del left[index]
        while waiting and jobs[waiting[0]][0] <= now:
            index = waiting.pop(0)
            left[index] = Fraction(jobs[index][1])
    return ends


def stepwise_completions(jobs: list[Job], count: int, quantum: int) -> list[int]:
    """The brute force that knows no events: in every quantum of time each job present gets its share."""
    left = [float(demand) for _, demand in jobs]
    ends = [-1] * len(jobs)
    now = 0
    while min(ends) < 0:
        present = [i for i, (arrival, _) in enumerate(jobs) if arrival <= now and ends[i] < 0]
        now += quantum
        for index in present:
            left[index] -= quantum * min(1.0, count / len(present))
            if left[index] <= 1e-6:
                ends[index] = now
    return ends


jobs = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 2000)), min_size=1, max_size=6)


@given(jobs=jobs, count=st.integers(1, 4))
@settings(max_examples=150)
def test_shared_cores_finish_jobs_when_exact_arithmetic_does(jobs: list[Job], count: int) -> None:
    """A nanosecond is the grid of the clock; each change of the jobs present may round by one."""
    ours, exact = completions(jobs, count), exact_completions(jobs, count)
    assert all(abs(end - expected) <= len(jobs) + 1 for end, expected in zip(ours, exact, strict=True))


@given(
    jobs=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=5), count=st.integers(1, 3)
)
@settings(max_examples=40)
def test_shared_cores_agree_with_a_reference_that_knows_no_events(jobs: list[Job], count: int) -> None:
    scaled = [(1000 * arrival, 1000 * demand) for arrival, demand in jobs]
    for ours, theirs in zip(completions(scaled, count), stepwise_completions(scaled, count, quantum=100), strict=True):
        assert abs(ours - theirs) <= 100 * (len(jobs) + 1)


@given(jobs=jobs, count=st.integers(1, 4))
@settings(max_examples=150)
def test_shared_cores_conserve_work(jobs: list[Job], count: int) -> None:
    """Cores never idle while a job could use them: demand = integral of min(C, jobs present), to a ns a change."""
    ends = completions(jobs, count)
    changes = sorted({arrival for arrival, _ in jobs} | set(ends))
    done = 0
    for start, end in itertools.pairwise(changes):
        present = sum(arrival <= start < finished for (arrival, _), finished in zip(jobs, ends, strict=True))
        done += min(count, present) * (end - start)
    assert abs(done - sum(demand for _, demand in jobs)) <= 2 * count * len(jobs)


@given(jobs=jobs, count=st.integers(1, 4))
def test_a_job_is_never_slowed_while_there_are_cores_enough_nor_faster_than_alone(jobs: list[Job], count: int) -> None:
    ends = completions(jobs, count)
    for (arrival, demand), end in zip(jobs, ends, strict=True):
        assert end >= arrival + demand
        others = sum(a < end and e > arrival for (a, _), e in zip(jobs, ends, strict=True))
        if others <= count:
            assert end == arrival + demand


class Stated(Services):
    """Services whose times are stated, one after the other."""

    def __init__(self, times: list[int]) -> None:
        self._times = iter(times)

    @property
    def constant(self) -> None:
        """They vary."""

    def next_ns(self, fetch: bool) -> int:
        """The next service's nanoseconds."""
        return next(self._times)


class Asking(Alarm):
    """A request that notes (start, wait, end) of its service."""

    def __init__(self, clock: Clock, queue: Gauge, served: list[tuple[int, int, int]]) -> None:
        self._clock, self.queue, self._served = clock, queue, served
        self.arrived = self.started = -1

    def arrive(self) -> None:
        self.arrived = self._clock.now
        self.queue.submit(self, False)  # type: ignore[arg-type]

    def serve(self) -> None:
        self._served.append((self.started, self.started - self.arrived, self._clock.now))


@given(
    requests=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=8), shared=st.booleans()
)
def test_the_server_serves_one_at_a_time_in_order_of_arrival(requests: list[Job], shared: bool) -> None:
    """Lindley's recursion: a service starts at the arrival or the end of the one before, whichever is later."""
    clock = Clock()
    requests = sorted(requests, key=lambda request: request[0])
    services = [service for _, service in requests]
    queue: Gauge
    if shared:
        cores = Sharing(clock)
        one = cores.add([Capacity("cores", 1)], 1.0)
        queue = OnCores(clock, Stated(services), cores, one)
    else:
        queue = Fcfs(clock, Stated(services))
    served: list[tuple[int, int, int]] = []
    for arrival, _ in requests:
        Timer(clock, arrival, Asking(clock, queue, served).arrive)
    clock.run()
    assert queue.present == 0
    assert queue.busy_ns == sum(services)
    assert queue.present_ns == sum(end - arrival for (_, _, end), (arrival, _) in zip(served, requests, strict=True)), (
        "Little's law"
    )
    free, expected = 0, []
    for arrival, service in requests:
        start = max(arrival, free)
        free = start + service
        expected.append((start, start - arrival, free))
    assert served == expected
