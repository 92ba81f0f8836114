"""Communication that overlaps with training: Downpour (Dean et al. 2012) in virtual time."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from asgd_lab.backends.build import build_algorithm, build_budget
from asgd_lab.backends.inline import Inline
from tests.backends.sim.laws import SECOND, Ints, staleness
from tests.backends.virtual import TIMING, Run, scenario, simulate
from tests.protocol.toys import Counting

BYTES = 1000


def downpour(
    workers: int = 1,
    updates: int = 12,
    n_sync: int = 1,
    depth: int = 1,
    algorithm: dict[str, Any] | None = None,
    seed: int = 0,
    **hardware: Any,
) -> Run:
    algorithm = {"name": "downpour", "n_sync": n_sync, "depth": depth} if algorithm is None else algorithm
    task = TIMING | {"size_bytes": BYTES}
    return simulate(scenario(task, algorithm, workers, {"updates": updates}, hardware, seed=seed))


def most_under_way(run: Run) -> int:
    """The most pushes that one worker had under way at one time."""
    most = 0
    for _, rows in run.rows("push").groupby("worker"):
        starts, ends = rows["start_s"].to_numpy(), rows["end_s"].to_numpy()
        most = max(most, *(int(((starts <= start) & (ends > start)).sum()) for start in starts))
    return most


# ---------------------------------------------------------------- budgets and depth

rhythms = st.one_of(
    st.builds(lambda n: {"n_sync": n}, st.integers(1, 4)),
    st.builds(lambda f, p: {"n_fetch": f, "n_push": p}, st.integers(1, 5), st.integers(1, 5)),
)
machines = st.fixed_dictionaries(
    {
        "compute": st.sampled_from([{}, {"distribution": "exponential"}, {"distribution": "gamma", "cv": 1.5}]),
        "client": st.sampled_from([{}, {"push_s": 0.7, "fetch_s": 0.3}]),
        "link": st.sampled_from(
            [{}, {"latency_s": 0.6}, {"bandwidth_bytes_per_s": 400.0}, {"bandwidth_bytes_per_s": 400.0, "shared": True}]
        ),
        "server": st.sampled_from([{}, {"push_s": 0.2}, {"push_s": 0.2, "fetch_s": 0.1}, {"count": 2, "push_s": 0.1}]),
    }
)


@given(
    rhythm=rhythms,
    depth=st.integers(1, 4),
    workers=st.integers(1, 5),
    budget=st.integers(1, 50),
    pushes=st.sampled_from(["delta", "gradient"]),
    hardware=machines,
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_every_minibatch_of_the_budget_is_applied_once_and_no_more_than_depth_pushes_are_under_way(
    rhythm: dict[str, int],
    depth: int,
    workers: int,
    budget: int,
    pushes: str,
    hardware: dict[str, Any],
    seed: int,
) -> None:
    """The toy's parameters count whose minibatches are in them: all deltas sum to final - initial, none is lost.

    The same inline, where what is started is done at once.
    """
    rule = ["add"] if pushes == "delta" else [{"name": "sgd", "lr": 1.0}]
    algorithm = {"name": "downpour", "depth": depth, "push": pushes, "rule": rule, **rhythm}
    stated = scenario(TIMING, algorithm, workers, {"minibatches": budget}, hardware, seed=seed)
    run = simulate(stated, task=Counting())
    assert run.outcome.params is not None
    applied = run.applies
    assert run.outcome.params.sum() == budget == applied["steps"].sum()
    mine = run.rows("push").groupby("worker")["steps"].sum()
    assert [run.outcome.params[worker] for worker in mine.index] == mine.tolist()
    assert most_under_way(run) <= depth
    lab = Inline(Counting(), build_algorithm(stated), build_budget(stated), workers)
    lab.run()
    assert lab.parameters.sum() == lab.server.minibatches == budget


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_depth_is_reached_where_pushes_are_slow(depth: int) -> None:
    """A push that takes 3.5 minibatches of software meets `depth` buffers, of which all are in use."""
    run = downpour(updates=30, depth=depth, client={"push_s": 3.5})
    assert most_under_way(run) == depth


# ---------------------------------------------------------------- how long a round takes


def period(run: Run) -> float:
    """Seconds between two versions, in the long run of one worker."""
    between: Ints = np.diff(run.applies["end_s"].to_numpy())[4:]
    assert len(set(between.tolist())) == 1
    return float(between[0] / SECOND)


LINK = {"up_bytes_per_s": 500.0, "down_bytes_per_s": 400.0, "latency_s": 0.25}  # push 2.5, fetch 3.0 with latency


@pytest.mark.parametrize(
    ("n_sync", "link", "asgd", "overlapped"),
    [
        (1, {}, 1.0, 1.0),  # nothing to hide
        (4, LINK, 4 + 2.5 + 3.0, 4.0),  # computing hides all of it
        (1, LINK, 1 + 2.5 + 3.0, 3.0),  # the fetch is the longest
        (1, LINK | {"up_bytes_per_s": 125.0}, 1 + 8.5 + 3.0, 8.5),  # the push is the longest
        (2, LINK | {"down_bytes_per_s": 100.0}, 2 + 2.5 + 10.5, 10.5),
    ],
)
def test_a_round_takes_the_longest_of_computing_pushing_and_fetching_instead_of_their_sum(
    n_sync: int, link: dict[str, float], asgd: float, overlapped: float
) -> None:
    """By hand, for one worker and one push under way: max(C, P, F) instead of C + P + F."""
    blocking = downpour(updates=14, algorithm={"name": "asgd", "n_sync": n_sync}, link=link)
    assert period(blocking) == asgd
    assert period(downpour(updates=14, n_sync=n_sync, link=link)) == overlapped


@pytest.mark.parametrize(("depth", "seconds"), [(1, 6.0), (2, 3.0), (3, 2.0), (6, 1.0), (8, 1.0)])
def test_more_pushes_under_way_hide_more_of_what_each_waits_for(depth: int, seconds: float) -> None:
    """A push of 6 s that waits for nobody: max(C, P/depth)."""
    run = downpour(updates=60, depth=depth, client={"push_s": 6.0})
    ends = run.applies["end_s"].to_numpy()
    assert ends[-1] - ends[-1 - 2 * depth] == 2 * depth * seconds * SECOND


def test_pushes_of_one_worker_share_its_link() -> None:
    """Two buffers hide no bandwidth: bytes take their time, two at once or one after the other."""
    for depth in (1, 2):
        run = downpour(updates=40, depth=depth, link={"up_bytes_per_s": 250.0})
        ends = run.applies["end_s"].to_numpy()
        assert ends[-1] - ends[-9] == pytest.approx(8 * 4.0 * SECOND, abs=10)


def test_training_is_all_that_a_worker_does_where_it_hides_the_rest() -> None:
    """But for the first fetch, which nothing hides."""
    run = downpour(updates=14, n_sync=4, link=LINK)
    spent = dict(zip(("compute", "client", "staging", "link"), run.simulation.accounts[0].spent_ns, strict=False))
    assert spent["compute"] == run.rows("train")["steps"].sum() * SECOND + spent_at_the_end(run)
    assert spent["link"] == 3.0 * SECOND
    assert spent["compute"] + spent["link"] == run.outcome.makespan_ns


def spent_at_the_end(run: Run) -> int:
    """Nanoseconds of the minibatches that were under way when the run ended."""
    return int(run.outcome.makespan_ns - run.rows("train")["end_s"].max())


# ---------------------------------------------------------------- staleness


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("n_sync", [1, 3])
def test_on_a_free_network_deterministic_workers_are_exactly_2m_minus_1_stale(workers: int, n_sync: int) -> None:
    """A center is asked for a round before it is used, so that it is one round of M versions older than A-SGD's."""
    run = downpour(workers, 20 * workers, n_sync)
    assert set(staleness(run)[2 * workers :]) == {2 * workers - 1}


@given(
    workers=st.integers(1, 5),
    compute=st.sampled_from(
        [{"distribution": "exponential"}, {"distribution": "gamma", "cv": 2.0}, {"distribution": "lognormal"}]
    ),
    speeds=st.lists(st.sampled_from([0.4, 1.0, 2.5]), min_size=1, max_size=3),
    n_sync=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_on_a_free_network_mean_staleness_is_2m_minus_1_whatever_the_distributions_and_speeds(
    workers: int, compute: dict[str, Any], speeds: list[float], n_sync: int, seed: int
) -> None:
    """Little's law for versions: each worker has two centers in flight at all times, so 1 + mean staleness = 2M.

    An identity of every finite run, with what is under way at the end counted up to the end: the center that each
    trains on, and the one that it has asked for.
    """
    updates = 60
    run = downpour(workers, updates, n_sync, seed=seed, compute=compute, speeds=speeds)
    used = run.applies["version"].to_numpy() - 1 - staleness(run)
    under_way = []
    for worker in run.simulation.workers:
        trained = run.rows("train")
        trained = trained[trained["worker"] == worker.number]
        pushed = run.rows("push")
        pushed = pushed[pushed["worker"] == worker.number]
        if worker.training.under_way:
            under_way.append(worker.replica.version)
        elif len(trained) > len(pushed):
            under_way.append(int(trained["version"].iloc[-1]))
        if worker.fetch.in_flight:
            under_way.append(worker.fetch.answer.version)
    last = run.rows("push").sort_values("version")["worker"].iloc[-1]
    assert len(under_way) == 2 * workers - 1, "the last push has ended the run"
    assert run.simulation.workers[last].fetch.in_flight
    total = (run.applies["version"].to_numpy() - used).sum() + sum(updates - version for version in under_way)
    assert total == 2 * workers * updates
