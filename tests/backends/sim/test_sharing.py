"""Fair sharing among takers of one capacity: processor sharing, against exact arithmetic and queueing theory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from asgd_lab.backends.sim.clock import Clock, Timer
from asgd_lab.backends.sim.sharing import Capacity, Sharing
from tests.backends.sim.laws import (
    EXPONENTIAL,
    SECOND,
    Floats,
    Ints,
    accept,
    batch_means_p,
    geometric_from_0,
    pooled_chi_square_p,
    timing_run,
)

Job = tuple[int, int]  # (arrival, demand) in nanoseconds


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
@settings(max_examples=100)
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


# ---------------------------------------------------------------- queueing theory

MEAN_NS = 10**6  # of a job, alone: the clock's grid is a millionth of it
CASES = {"deterministic": 0.0, "exponential": 1.0, "hyper-exponential": 2.0, "lognormal": 1.5}


def sizes(name: str, count: int, random: np.random.Generator) -> Floats:
    """Jobs of mean 1, by the name of their distribution; CASES has its coefficient of variation."""
    cv = CASES[name]
    if name == "deterministic":
        return np.ones(count)
    if name == "exponential":
        return random.standard_exponential(count)
    if name == "lognormal":
        variance = math.log1p(cv**2)
        return random.lognormal(-variance / 2, math.sqrt(variance), count)
    # Two exponential phases with balanced means: p/m1 = (1-p)/m2.
    p = (1 + math.sqrt((cv**2 - 1) / (cv**2 + 1))) / 2
    means = np.where(random.random(count) < p, 1 / (2 * p), 1 / (2 * (1 - p)))
    return means * random.standard_exponential(count)


def served_at_once(name: str, servers: int, load: float, count: int, seed: int) -> tuple[Floats, Ints]:
    """(sojourns in means of a job, numbers that arrivals found there) of Poisson arrivals at `servers` shared cores."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(MEAN_NS / (servers * load), count)).astype(np.int64)
    demands = sizes(name, count, random) * MEAN_NS
    clock = Clock()
    cores = Sharing(clock)
    capacity = Capacity("cores", servers)
    one = cores.add([capacity], 1.0)
    sojourns = np.zeros(count)
    found = np.zeros(count, np.int64)

    def arrive(index: int) -> None:
        found[index] = capacity.takers
        begun = clock.now

        def finish() -> None:
            sojourns[index] = (clock.now - begun) / MEAN_NS

        cores.take(one, float(demands[index]), finish)
        if index + 1 < count:
            Timer(clock, int(arrivals[index + 1]) - clock.now, lambda: arrive(index + 1))

    Timer(clock, int(arrivals[0]), lambda: arrive(0))
    clock.run()
    cores.move()
    assert capacity.takers == 0
    assert capacity.used == pytest.approx(demands.sum(), rel=1e-6)
    assert capacity.present_ns == round(sojourns.sum() * MEAN_NS), "Little's law"
    return sojourns, found


@pytest.mark.parametrize("name", CASES)
def test_the_mean_sojourn_of_processor_sharing_depends_on_the_sizes_by_their_mean_alone(name: str) -> None:
    """M/G/1-PS: E[S]/(1-rho), insensitive (Kleinrock 1976, section 4.4). Batch means; t with 19 degrees of freedom.

    And an arrival finds k jobs with probability (1-rho) rho^k, whatever their sizes: chi-square over every 40th
    arrival, which hardly know of one another.
    """
    load = 0.6
    sojourns, found = served_at_once(name, 1, load, 24_000, seed=11)
    accept(batch_means_p(sojourns[1_000:], 1 / (1 - load)))
    accept(pooled_chi_square_p(found[1_000::40], geometric_from_0(load / (1 - load))))


@pytest.mark.parametrize("name", ["deterministic", "hyper-exponential"])
def test_several_shared_cores_have_the_mean_sojourn_of_as_many_exponential_servers(name: str) -> None:
    """Generalised processor sharing (Cohen 1979): insensitive too, so that sojourns have the mean of M/M/C (Erlang)."""
    servers, load = 3, 0.7
    offered = servers * load
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    tail = offered**servers / math.factorial(servers) / (1 - load)
    erlang_c = tail / (sum(terms) + tail)
    sojourns, _ = served_at_once(name, servers, load, 24_000, seed=12)
    accept(batch_means_p(sojourns[1_000:], 1 + erlang_c / (servers * (1 - load))))


@pytest.mark.parametrize("name", CASES)
def test_the_sizes_are_distributed_as_they_are_called(name: str) -> None:
    """z of the mean; the coefficient of variation to a tenth."""
    drawn = sizes(name, 200_000, np.random.default_rng(1))
    cv = CASES[name]
    assert drawn.std() / drawn.mean() == pytest.approx(cv, abs=0.1)
    assert not cv or stats.ttest_1samp(drawn, 1.0).pvalue > 0.01
