"""Throughput and utilisation of workers before one server: closed queueing networks, whose answers are known."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from tests.backends.sim.laws import EXPONENTIAL, SECOND, accept, batch_means_p, ends_of_versions, timing_run
from tests.backends.virtual import TIMING, scenario, simulate


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


def with_constant_service(workers: int, think: float, service: float) -> float:
    """Throughput of M workers with exponential think times before one server with *constant* service (M/D/1//M).

    Exact, by the Markov chain at departures: let k be how many a departure leaves at the server. The next departure
    comes S later, after a wait for the first arrival, of mean Z/M, if k = 0; meanwhile each worker away arrives with
    probability 1 - exp(-S/Z) (Takacs 1962, chapter 5).
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
def test_throughput_before_a_constant_server_is_that_of_the_machine_repairman(workers: int, service: float) -> None:
    """M/D/1//M (Takacs 1962). Batch means of the times between versions; t with 19 degrees of freedom.

    The case of 16 workers is saturated to 1 in 10^4, and has hardly any variance left.
    """
    run = timing_run(workers, 6_000, EXPONENTIAL | {"server": {"push_s": service}}, seed=2)
    exact = with_constant_service(workers, 1.0, service)
    bound = min(workers / (1 + service), 1 / service)
    assert exact <= bound * (1 + 1e-12)
    between = np.diff(ends_of_versions(run))[200:]
    if exact * service > 0.999:
        assert 1 / between.mean() == pytest.approx(exact, rel=1e-3)
    else:
        accept(batch_means_p(between, 1 / exact))
    assert 1 / between.mean() <= 1 / service


def with_exponential_service(workers: int, think: float, service: float) -> float:
    """Throughput of M workers with mean think time Z, however it is distributed, before one exponential server.

    X = (1 - p0)/S with 1/p0 = sum over k of M!/(M-k)! (S/Z)^k: a closed network of product form, which depends on the
    distribution at its infinite-server station by its mean alone (Baskett, Chandy, Muntz, Palacios 1975).
    """
    idle = 1 / sum(math.perm(workers, k) * (service / think) ** k for k in range(workers + 1))
    return (1 - idle) / service


@pytest.mark.parametrize("compute", [{}, {"cv": 1.5}, {"cv": 2.0}, {"cv": 0.2}], ids=["M", "LN", "G", "LN0.2"])
@pytest.mark.parametrize(("workers", "service"), [(1, 1.0), (3, 0.5), (6, 0.125), (6, 0.25)])
def test_throughput_before_an_exponential_server_depends_on_think_times_by_their_mean_alone(
    workers: int, service: float, compute: dict[str, float]
) -> None:
    """Machine repairman with exponential service (FCFS, closed): exponential, lognormal and gamma think times.

    Batch means of the times between versions; t with 19 degrees of freedom.
    """
    name = {0: "exponential", 1.5: "lognormal", 2.0: "gamma", 0.2: "lognormal"}[compute.get("cv", 0)]
    hardware = {
        "compute": {"distribution": name, **compute},
        "server": {"push_s": service, "distribution": "exponential"},
    }
    run = timing_run(workers, 5_000, hardware, seed=6)
    accept(batch_means_p(np.diff(ends_of_versions(run))[200:], 1 / with_exponential_service(workers, 1.0, service)))


@pytest.mark.parametrize("workers", [1, 2, 5, 20])
def test_the_two_closed_forms_meet_where_they_must(workers: int) -> None:
    """At both ends, idle and saturated; in between a constant server is never slower than an exponential one."""
    for service in (1e-6, 0.1, 0.5, 1e3):
        constant, exponential = (
            law(workers, 1.0, service) for law in (with_constant_service, with_exponential_service)
        )
        assert exponential <= constant * (1 + 1e-9)
        assert constant <= min(workers / (1 + service), 1 / service) * (1 + 1e-9)
    assert with_exponential_service(workers, 1.0, 1e-6) == pytest.approx(workers, rel=1e-4)
    assert with_exponential_service(workers, 1.0, 1e4) == pytest.approx(1e-4, rel=1e-3)


def test_throughput_tends_to_the_workers_where_the_server_is_idle_and_to_the_server_where_it_is_not() -> None:
    """Machine repairman, asymptotics: one worker has X = 1/(Z+S); many have 1/S."""
    assert with_constant_service(1, 1.0, 0.5) == pytest.approx(1 / 1.5)
    assert with_constant_service(60, 1.0, 0.5) == pytest.approx(2.0)
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
@settings(max_examples=25)
def test_the_servers_utilisation_is_throughput_times_service(
    workers: int,
    push_s: float,
    fetch_s: float,
    latency_s: float,
    distribution: str,
    algorithm: dict[str, object],
    seed: int,
) -> None:
    """The utilisation law (Denning and Buzen 1978), in every run: U = X_push*S_push + X_fetch*S_fetch."""
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


def test_the_server_is_never_busier_than_always() -> None:
    hardware = {"server": {"push_s": 0.1, "fetch_s": 1.0}}
    run = simulate(scenario(TIMING | {"step_s": 0.01}, workers=4, budget={"minibatches": 4}, hardware=hardware))
    assert run.utilisation() <= 1


@pytest.mark.parametrize("budget", [{"updates": 1}, {"seconds": 1.0}], ids=str)
def test_workers_are_never_busier_than_always(budget: dict[str, float]) -> None:
    run = simulate(scenario(workers=2, budget=budget))
    assert run.summary()["utilisation"]["workers"] <= 1


def test_a_round_takes_the_sum_of_its_stated_costs() -> None:
    """The head of exchange.py: latency, service, latency and transfer, client; minibatches; and back."""
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
