"""Crashes and restarts: what is lost, who is released, where a worker goes on, and how often it all happens."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from asgd_lab.backends.build import build_task
from asgd_lab.backends.sim.accounts import DOWN
from asgd_lab.backends.sim.simulation import Simulation
from asgd_lab.record.run import RunDirectory
from asgd_lab.tasks.base import Bufferless
from tests.backends.sim.laws import SECOND, accept, normal_p
from tests.backends.virtual import TIMING, Memory, Run, scenario, simulate

NEVER_S = 1e9


def crashing(*schedule: tuple[int, float, float]) -> Callable[[Simulation], None]:
    """Crashes at stated times: (worker, when in seconds, for how long)."""

    def arrange(simulation: Simulation) -> None:
        delays: dict[int, list[float]] = defaultdict(list)
        up_since: dict[int, float] = defaultdict(float)
        for worker, when, length in schedule:
            delays[worker] += [when - up_since[worker], length]
            up_since[worker] = when + length
        streams = {worker: iter(times) for worker, times in delays.items()}

        def delay_ns(worker: int, mean_s: float) -> int:
            return round(next(streams.get(worker, iter(())), NEVER_S) * SECOND)

        assert simulation.faults is not None
        simulation.faults._delay_ns = delay_ns  # type: ignore[method-assign]

    return arrange


def faults(detect_s: float = 0.0) -> dict[str, float]:
    return {"mean_time_between_failures_s": 1.0, "mean_time_to_repair_s": 1.0, "detect_s": detect_s}


def run(
    *schedule: tuple[int, float, float],
    algorithm: dict[str, Any] | None = None,
    workers: int = 2,
    budget: dict[str, Any] | None = None,
    detect_s: float = 0.0,
    size_bytes: int = 0,
    **hardware: Any,
) -> Run:
    """A timing run with these crashes."""
    stated = scenario(
        TIMING | {"size_bytes": size_bytes}, algorithm, workers, budget or {"updates": 8},
        hardware, faults=faults(detect_s),
    )  # fmt: skip
    return simulate(stated, arrange=crashing(*schedule))


def pushes(run: Run, worker: int) -> list[tuple[int, float, int]]:
    """(round, when it was done, staleness) of one worker's."""
    rows = run.rows("push")
    rows = rows[rows["worker"] == worker]
    return list(zip(rows["round"].tolist(), (rows["end_s"] / SECOND).tolist(), rows["staleness"].tolist(), strict=True))


# ---------------------------------------------------------------- by hand


def test_a_crash_loses_the_round_under_way_and_the_worker_begins_it_anew() -> None:
    """Minibatches of a second; worker 1 is away from 1.5 to 2.25: its second push comes at 3.25."""
    found = run((1, 1.5, 0.75))
    assert [(round, when) for round, when, _ in pushes(found, 1)] == [(1, 1.0), (2, 3.25), (3, 4.25)]
    assert [(round, when) for round, when, _ in pushes(found, 0)] == [(n, float(n)) for n in range(1, 6)]
    account = found.simulation.accounts[1]
    assert account.spent_ns[DOWN] == 0.75 * SECOND
    assert found.simulation.workers[1].replica.incarnation == 2
    facts = found.outcome.facts["faults"]
    assert facts == {"crashes": 1, "lost_minibatches": 0, "availability": 1 - 0.75 / (2 * 5.0)}


def test_a_crash_between_training_and_the_server_loses_what_was_trained() -> None:
    """Pushes leave at 4 s and take 0.5 s on the link: a crash on the way loses 3 minibatches, which are counted."""
    algorithm = {"name": "asgd", "n_sync": 3}
    found = run((1, 4.25, 100.0), algorithm=algorithm, link={"latency_s": 0.5}, budget={"updates": 2})
    assert found.outcome.facts["faults"]["lost_minibatches"] == 3
    assert (found.applies["end_s"] / SECOND).tolist() == [4.5, 9.5]
    assert pushes(found, 1) == []


def test_minibatches_of_the_round_under_way_are_lost_as_far_as_they_were_taken() -> None:
    """Rounds of 4 minibatches of a second: at 6.5 the second round has 2 and a half."""
    found = run((1, 6.5, 100.0), algorithm={"name": "asgd", "n_sync": 4}, budget={"updates": 3})
    assert found.outcome.facts["faults"]["lost_minibatches"] == 2
    assert [when for _, when, _ in pushes(found, 1)] == [4.0]


def test_servers_do_not_wait_for_slices_that_will_never_come() -> None:
    """Two servers of one order; worker 1 is gone when its push has reached the first and not the second.

    Its slice to the second takes 2 s: the push of 1 s is given up at 2, and 0's push of 4 s is applied at once.
    """
    found = run(
        (1, 2.0, 100.0),
        size_bytes=1000,
        groups=[{"name": "near", "workers": 1}, {"name": "far"}],
        links=[{"group": "far", "servers": [1], "up_bytes_per_s": 250.0}],
        speeds=[0.25, 1.0],
        server={"count": 2},
        budget={"updates": 1},
    )
    assert found.outcome.makespan_ns == 4 * SECOND
    assert [queue.present for queue in found.simulation.machine.queues] == [0, 0]
    assert found.outcome.facts["faults"]["lost_minibatches"] == 1


def test_a_transfer_over_a_link_of_ones_own_ends_with_its_worker() -> None:
    """Pushes of 4 s from 1 on, of which worker 1's is cut off at 2: its link was used for a second."""
    found = run((1, 2.0, 100.0), size_bytes=1000, link={"up_bytes_per_s": 250.0}, budget={"updates": 1})
    (up,) = (one for one in found.outcome.facts["resources"] if one["name"] == "workers' links up")
    assert found.outcome.makespan_ns == 5 * SECOND
    assert up["present"] == pytest.approx((4.0 + 1.0) / 5.0)
    assert up["utilisation"] == pytest.approx((4.0 + 1.0) / 5.0 / 2)


def test_a_push_that_waits_in_the_queue_is_served_and_not_applied() -> None:
    """Both push at 1; 0 is served until 3, and 1 would be until 5, but is gone at 2.

    Its service goes on, so that 0's next push, of 4, waits until 5.
    """
    found = run((1, 2.0, 100.0), server={"push_s": 2.0}, budget={"updates": 2})
    assert found.rows("push")["worker"].tolist() == [0, 0]
    assert (found.applies["start_s"] / SECOND).tolist() == [1.0, 5.0]
    assert (found.applies["wait_s"] / SECOND).tolist() == [0.0, 1.0]
    assert found.simulation.machine.queues[0].busy_ns == 6 * SECOND
    assert found.outcome.facts["faults"]["lost_minibatches"] == 1


def test_what_had_arrived_is_applied_as_long_as_the_server_does_not_know() -> None:
    """The same, but the crash is detected after 10 s: the push is applied at 5, and nothing is lost."""
    found = run((1, 2.0, 100.0), server={"push_s": 2.0}, budget={"updates": 3}, detect_s=10.0)
    assert (found.applies["end_s"] / SECOND).tolist() == [3.0, 5.0, 7.0]
    assert found.outcome.facts["faults"]["lost_minibatches"] == 0
    assert found.rows("push")["worker"].tolist() == [0, 0], "nobody is there who could hear of it"


@pytest.mark.parametrize(("detect_s", "released"), [(0.0, 1.0), (0.25, 1.0), (2.0, 2.5)])
def test_a_crash_releases_the_round_as_soon_as_it_is_detected(detect_s: float, released: float) -> None:
    """Lock-step: worker 1 is gone at 0.5, in its first minibatch; 0 has pushed at 1 and waits for the detection."""
    found = run((1, 0.5, 100.0), algorithm={"name": "sync_sgd", "n_sync": 1}, budget={"updates": 1}, detect_s=detect_s)
    assert found.outcome.makespan_ns == released * SECOND
    assert found.applies["worker"].tolist() == [-1], "one push makes the version"


def test_a_worker_that_comes_back_before_it_was_missed_is_missed_then() -> None:
    """Lock-step, detection after 10 s: 1 is gone from 0.5 to 3; its old self is dropped at 3, the round is over.

    The new one is in the second round, which takes from 3 to 4.
    """
    found = run((1, 0.5, 2.5), algorithm={"name": "sync_sgd", "n_sync": 1}, budget={"updates": 2}, detect_s=10.0)
    made = found.applies.groupby("version")["end_s"].max() / SECOND
    assert found.applies["version"].tolist() == [1, 2, 2]
    assert made.tolist() == [1.0, 4.0]
    assert [when for _, when, _ in pushes(found, 0)] == [3.0, 4.0]


@pytest.mark.parametrize("bound", [0, 2])
def test_bounded_staleness_goes_on_without_a_worker_that_is_gone(bound: int) -> None:
    """Worker 0 may be `bound` rounds ahead of worker 1, which is gone in its first round, until that is detected."""
    algorithm = {"name": "ssp", "n_sync": 1, "bound": bound}
    found = run((1, 0.5, 100.0), algorithm=algorithm, budget={"updates": bound + 2}, detect_s=20.0)
    assert [when for _, when, _ in pushes(found, 0)] == [*(float(n) for n in range(1, bound + 2)), 21.5]


def test_a_link_is_divided_anew_when_a_sender_dies() -> None:
    """1,000 bytes each, from 1 s over 1,000 a second: half for each until 2 s, when 1 is gone; 0 is done at 2.5 s."""
    found = run(
        (1, 2.0, 100.0),
        size_bytes=1000,
        link={"up_bytes_per_s": 1000.0, "shared": True},
        budget={"updates": 1},
    )
    assert found.outcome.makespan_ns == 2.5 * SECOND
    (up,) = (one for one in found.simulation.machine.network.capacities if one.name == "link up")
    assert up.used == pytest.approx(1500)
    assert up.present_ns == (1.5 + 1.0) * SECOND


def test_a_link_is_divided_anew_when_a_receiver_dies() -> None:
    """Both fetch 1,000 bytes from 0 on; 1 is gone at 1, and 0 has the link for its other 500."""
    found = run(
        (1, 1.0, 100.0), size_bytes=1000, link={"down_bytes_per_s": 1000.0, "shared": True}, budget={"updates": 1}
    )
    assert (found.rows("fetch")["end_s"] / SECOND).tolist() == [1.5]


def test_all_transfers_of_a_dead_sender_are_gone() -> None:
    """Downpour, two pushes each of 2,000 bytes over 1,000 bytes a second: begun at 1 s and at 2 s; 1 is gone at 3.5 s.

    By then 0 has sent 500 + 375 and 375. Then both of its own have half: the first is done after 2.25 s. A third begins
    in its place, and the second is done after another second. A fourth joins the third, which has 1,500 to go: 3 s.
    """
    found = run(
        (1, 3.5, 1000.0),
        algorithm={"name": "downpour", "n_sync": 1, "depth": 2},
        size_bytes=2000,
        link={"up_bytes_per_s": 1000.0, "shared": True},
        budget={"updates": 3},
    )
    assert [when for _, when, _ in pushes(found, 0)] == [5.75, 6.75, 9.75]
    assert found.outcome.facts["faults"]["lost_minibatches"] == 3, "two on the link, and one that waits for a buffer"


def test_software_of_a_dead_worker_leaves_the_cores_to_the_others() -> None:
    """Two fetches on one core, of 2 s each: half for each until 1 is gone at 1; 0 is done at 2.5."""
    found = run(
        (1, 1.0, 100.0), host={"workers": 2, "cores": 1}, device={"workers": 1}, client={"fetch_s": 2.0},
        budget={"updates": 1},
    )  # fmt: skip
    assert (found.rows("fetch")["end_s"] / SECOND).tolist() == [2.5]


def test_training_of_a_dead_worker_leaves_the_device_to_the_others() -> None:
    """A minibatch of 1 s each on one device: half for each until 1 is gone at 1, when 0 has half of its own left."""
    found = run((1, 1.0, 100.0), host={"workers": 2}, device={"workers": 2}, budget={"updates": 1})
    assert found.outcome.makespan_ns == 1.5 * SECOND


def test_a_push_that_is_collected_is_applied_though_its_worker_has_come_back_meanwhile() -> None:
    """Lock-step: 1 has pushed at 1 and is gone from 1.5 to 2.5; 0 pushes at 4 and makes the version, with 1's push.

    Worker 1's row says when its push was served, and its new self goes on after it.
    """
    found = run(
        (1, 1.5, 1.0), algorithm={"name": "sync_sgd", "n_sync": 1}, speeds=[0.25, 1.0], budget={"minibatches": 4}
    )
    first = found.applies[found.applies["version"] == 1]
    assert sorted((first["end_s"] / SECOND).tolist()) == [1.0, 4.0]
    assert (first["start_s"] == first["end_s"]).all()
    assert found.outcome.facts["faults"]["lost_minibatches"] == 0
    assert [worker.replica.minibatches for worker in found.simulation.workers] == [2, 2]


# ---------------------------------------------------------------- nothing is lost or taken twice


class MarkingLearner:
    def __init__(self, worker: int, params: Tensor, gradients: Tensor | None) -> None:
        self.worker, self.params, self.gradients = worker, params, gradients

    def minibatch(self, step: int) -> tuple[float, float]:
        self.params[self.worker] += 2.0**step
        if self.gradients is not None:
            self.gradients[self.worker] -= 2.0**step
        return 1.0, 0.5

    def buffers(self) -> dict[str, Tensor]:
        return {}

    def reset_momentum(self) -> None:
        pass

    def warm_up(self) -> None:
        pass


class Marking(Bufferless):
    """A task whose parameters say which minibatches of each worker are in them, bit by bit: 24 fit into a float32."""

    size, size_bytes = 8, 32

    def initial(self) -> Tensor:
        return torch.zeros(8)

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> MarkingLearner:
        return MarkingLearner(worker, params, gradients)

    def evaluate(self, *_: object) -> list[tuple[str, str, float]]:
        return []


algorithms = st.one_of(
    st.builds(lambda n: {"name": "asgd", "n_sync": n}, st.integers(1, 3)),
    st.builds(lambda f, p: {"name": "asgd", "n_fetch": f, "n_push": p}, st.integers(1, 3), st.integers(1, 3)),
    st.builds(lambda n, b: {"name": "ssp", "n_sync": n, "bound": b}, st.integers(1, 2), st.integers(0, 2)),
    st.builds(lambda n: {"name": "sync_sgd", "n_sync": n}, st.integers(1, 3)),
    st.builds(lambda n, d: {"name": "downpour", "n_sync": n, "depth": d}, st.integers(1, 2), st.integers(1, 3)),
    st.builds(
        lambda f, p: {"name": "downpour", "n_fetch": f, "n_push": p, "depth": 2}, st.integers(1, 3), st.integers(1, 3)
    ),
)
machines = st.fixed_dictionaries(
    {
        "compute": st.sampled_from([{}, {"distribution": "exponential"}]),
        "link": st.sampled_from([{}, {"latency_s": 0.3}, {"bandwidth_bytes_per_s": 80.0, "shared": True}]),
        "server": st.sampled_from([{}, {"push_s": 0.6}, {"push_s": 0.3, "fetch_s": 0.2}, {"count": 2, "push_s": 0.3}]),
        "client": st.sampled_from([{}, {"push_s": 0.2, "fetch_s": 0.1}]),
    }
)


@given(
    algorithm=algorithms,
    pushes=st.sampled_from(["delta", "gradient"]),
    workers=st.integers(1, 4),
    budget=st.integers(1, 22),
    crashes=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 4_000), st.integers(1, 3_000)), min_size=1, max_size=8
    ),
    detect_s=st.sampled_from([0.0, 0.35, 5.0]),
    hardware=machines,
    seed=st.integers(0, 99),
)
@settings(max_examples=120)
def test_whenever_workers_crash_each_minibatch_is_in_a_version_once_and_in_order(
    algorithm: dict[str, Any],
    pushes: str,
    workers: int,
    budget: int,
    crashes: list[tuple[int, int, int]],
    detect_s: float,
    hardware: dict[str, Any],
    seed: int,
) -> None:
    """The budget is used exactly; of every worker the first n minibatches are in the versions, each of them once.

    So a crash at any moment loses what is not in a version, and nothing else; whoever comes back goes on from there.
    """
    when: dict[int, float] = defaultdict(float)
    schedule = []
    for worker, after_ms, length_ms in crashes:
        begin = when[worker % workers] + after_ms / 1000
        schedule.append((worker % workers, begin, length_ms / 1000))
        when[worker % workers] = begin + length_ms / 1000
    rule = ["add"] if pushes == "delta" else [{"name": "sgd", "lr": 1.0}]
    stated = scenario(
        TIMING, algorithm | {"push": pushes, "rule": rule}, workers, {"minibatches": budget}, hardware,
        faults=faults(detect_s), seed=seed,
    )  # fmt: skip
    found = simulate(stated, task=Marking(), arrange=crashing(*schedule))  # type: ignore[arg-type]
    assert found.outcome.params is not None
    accepted = [found.simulation.server.taken(worker) for worker in range(workers)]
    assert sum(accepted) == budget == found.summary()["minibatches"]
    assert found.outcome.params[:workers].tolist() == [2**count - 1 for count in accepted]
    gone = sum(when * SECOND < found.outcome.makespan_ns for _, when, _ in schedule)
    assert found.outcome.facts["faults"]["crashes"] <= gone


# ---------------------------------------------------------------- renewal theory

UP_S, DOWN_S, FOR_S, WORKERS, ROUND_S = 20.0, 5.0, 4000.0, 40, 8.0


@pytest.fixture(scope="module")
def long_run() -> Run:
    stated = scenario(
        TIMING | {"step_s": ROUND_S},
        workers=WORKERS,
        budget={"seconds": FOR_S},
        hardware={},
        faults={"mean_time_between_failures_s": UP_S, "mean_time_to_repair_s": DOWN_S},
        seed=31,
    )
    return simulate(stated)


def test_workers_are_available_for_mtbf_of_mtbf_and_mttr(long_run: Run) -> None:
    """Alternating renewal process (Barlow and Proschan 1975): A = U/(U+D), for all workers together by z.

    Up and down times are exponential, a Markov chain of two states with r = 1/U + 1/D: a worker that begins up is down
    for (1-A)(T - (1-e^-rT)/r) in the mean, with the variance 2A(1-A)(T/r - (1-e^-rT)/r^2).
    """
    available, rate = UP_S / (UP_S + DOWN_S), 1 / UP_S + 1 / DOWN_S
    faded = (1 - math.exp(-rate * FOR_S)) / rate
    mean = (1 - available) * (FOR_S - faded)
    variance = 2 * available * (1 - available) * (FOR_S - faded) / rate
    down = [account.spent_ns[DOWN] / SECOND for account in long_run.simulation.accounts]
    accept(normal_p(float(np.mean(down)), mean, math.sqrt(variance / WORKERS)))
    stated = long_run.outcome.facts["faults"]["availability"]
    assert stated == pytest.approx(1 - np.mean(down) / FOR_S)


def test_workers_crash_once_a_cycle(long_run: Run) -> None:
    """Renewals: the mean number is (A*T + (1-A)(1-e^-rT)/r)/U, its variance tends to T(U^2+D^2)/(U+D)^3 a worker; z."""
    available, rate = UP_S / (UP_S + DOWN_S), 1 / UP_S + 1 / DOWN_S
    mean = (available * FOR_S + (1 - available) * (1 - math.exp(-rate * FOR_S)) / rate) / UP_S
    variance = FOR_S * (UP_S**2 + DOWN_S**2) / (UP_S + DOWN_S) ** 3
    accept(normal_p(long_run.outcome.facts["faults"]["crashes"], WORKERS * mean, math.sqrt(WORKERS * variance)))


def test_a_repair_takes_the_mean_time_to_repair_and_a_worker_is_up_for_the_mean_time_between_failures(
    long_run: Run,
) -> None:
    """Wald: the time spent in either state over the number of times is the mean of it; exponential, by z.

    What the end of the run has cut off is one of each a worker, of hundreds.
    """
    crashes = long_run.outcome.facts["faults"]["crashes"]
    down = sum(account.spent_ns[DOWN] for account in long_run.simulation.accounts) / SECOND
    accept(normal_p(down / crashes, DOWN_S, DOWN_S / math.sqrt(crashes)))
    up = WORKERS * FOR_S - down
    accept(normal_p(up / (crashes + WORKERS), UP_S, UP_S / math.sqrt(crashes)))


def test_a_round_survives_with_the_probability_of_no_crash_in_it(long_run: Run) -> None:
    """Exponential times have no memory: a round of R ends with the probability e^(-R/U). Binomial, by z.

    Rounds begin at a push or a restart, and end in a push or a crash; what the run's end cut off is left out.
    """
    ended = len(long_run.rows("push"))
    crashed = long_run.outcome.facts["faults"]["crashes"]
    survives = math.exp(-ROUND_S / UP_S)
    rounds = ended + crashed
    accept(normal_p(ended, rounds * survives, math.sqrt(rounds * survives * (1 - survives))))


def test_minibatches_of_a_round_that_was_not_over_are_lost_too() -> None:
    """Rounds of 100 s: at 50.5 fifty minibatches are done, and no version has them."""
    found = run((1, 50.5, 1000.0), algorithm={"name": "asgd", "n_sync": 100}, budget={"updates": 1})
    assert found.outcome.facts["faults"]["lost_minibatches"] == 50


def test_workers_that_never_get_through_a_round_end_the_run_as_failed() -> None:
    short = {"mean_time_between_failures_s": 0.1, "mean_time_to_repair_s": 0.1}
    stated = scenario(TIMING, {"name": "asgd", "n_sync": 10}, 1, {"minibatches": 100}, faults=short)
    outcome = Simulation(stated, cast(RunDirectory, Memory()), build_task(stated)).run()
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert "workers are not up for long enough" in outcome.failure


def test_a_push_that_has_reached_one_server_of_two_is_given_up_at_both() -> None:
    """At 1 both push; 1's slice for server 1 takes 10 s, and it is gone at 5: server 1 goes on with 0's next."""
    found = run(
        (1, 5.0, 1000.0),
        size_bytes=1000,
        budget={"updates": 4},
        groups=[{"name": "near", "workers": 1}, {"name": "far"}],
        links=[
            {"group": "near", "bandwidth_bytes_per_s": 5000.0, "shared": True},
            {"group": "far", "servers": [0], "bandwidth_bytes_per_s": 5000.0, "shared": True},
            {"group": "far", "servers": [1], "up_bytes_per_s": 50.0, "shared": True},
        ],
        server={"count": 2, "push_s": 0.1},
    )
    assert set(found.rows("push")["worker"]) == {0}
    assert found.outcome.updates == 4
    assert all(not one.takers for one in found.simulation.machine.network.capacities if one.name.startswith("link 2"))


# ---------------------------------------------------------------- at stated times


def stated(*schedule: dict[str, Any], workers: int = 2, budget: dict[str, Any] | None = None, on_death: str = "restart",
           algorithm: dict[str, Any] | None = None, **hardware: Any) -> Run:  # fmt: skip
    """A timing run, a second a minibatch, to which this happens."""
    return simulate(
        scenario(
            TIMING | {"size_bytes": 0}, algorithm, workers, budget or {"updates": 8}, hardware,
            faults={"schedule": list(schedule), "on_death": on_death},
        )
    )  # fmt: skip


def ends(run: Run, worker: int) -> list[float]:
    return [end for _, end, _ in pushes(run, worker)]


def test_a_worker_killed_at_a_stated_time_is_back_after_its_repair() -> None:
    """The same as the crash drawn at 1.5 s for 0.75 s."""
    found = stated({"name": "kill", "worker": 1, "at_s": 1.5, "repair_s": 0.75})
    assert ends(found, 1) == ends(run((1, 1.5, 0.75)), 1) == [1.0, 3.25, 4.25]
    assert found.outcome.facts["faults"]["crashes"] == 1


@pytest.mark.parametrize("on_death", ["continue", "stop"])
def test_a_death_is_the_end_of_the_worker_or_of_the_run(on_death: str) -> None:
    schedule = {"name": "kill", "worker": 1, "at_s": 1.5}
    if on_death == "stop":
        data = scenario(TIMING, workers=2, budget={"updates": 8}, faults={"schedule": [schedule], "on_death": "stop"})
        outcome = Simulation(data, cast(RunDirectory, Memory()), build_task(data)).run()
        assert outcome.failure == "worker 1 has died at 1.5 s, and on_death is stop"
        return
    found = stated(schedule, on_death=on_death)
    assert ends(found, 1) == [1.0]
    assert ends(found, 0) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


def test_a_run_whose_last_worker_is_dead_has_failed() -> None:
    kills = [{"name": "kill", "worker": worker, "at_s": 1.5} for worker in (0, 1)]
    data = scenario(TIMING, workers=2, budget={"updates": 8}, faults={"schedule": kills, "on_death": "continue"})
    outcome = Simulation(data, cast(RunDirectory, Memory()), build_task(data)).run()
    assert outcome.failure == "no worker is left: worker 1 has died at 1.5 s"


def test_a_slow_worker_does_less_in_the_same_time() -> None:
    """From 1.5 to 4 s a fifth as much: half of its second minibatch by 1.5 s, the other half by 4 s."""
    found = stated({"name": "slow", "worker": 1, "at_s": 1.5, "until_s": 4.0, "factor": 5})
    assert ends(found, 1) == [1.0, 4.0, 5.0]
    twice = [{"name": "slow", "worker": 1, "at_s": 1.0, "until_s": 9.0, "factor": factor} for factor in (2, 1.5)]
    assert ends(stated(*twice), 1)[:2] == [1.0, 4.0]


def test_a_worker_that_stands_still_goes_on_where_it_was() -> None:
    found = stated({"name": "stop", "worker": 1, "at_s": 1.5, "until_s": 3.25})
    assert ends(found, 1) == [1.0, 3.75, 4.75]
    assert found.outcome.facts["faults"]["lost_minibatches"] == 0
    overlapping = [{"name": "stop", "worker": 1, "at_s": at, "until_s": 3.25} for at in (1.5, 1.5, 2.0)]
    assert ends(stated(*overlapping), 1) == [1.0, 3.75, 4.75]


def test_a_worker_that_stands_still_while_it_waits_begins_when_it_goes_on() -> None:
    """Its push takes from 1 to 2 s; it stands still from 1.5 to 4 s."""
    found = stated({"name": "stop", "worker": 0, "at_s": 1.5, "until_s": 4.0}, workers=1, budget={"updates": 2},
                   server={"push_s": 1.0})  # fmt: skip
    assert ends(found, 0) == [2.0, 6.0]


@pytest.mark.parametrize("servers", [1, 2])
def test_a_server_that_is_down_begins_its_service_anew(servers: int) -> None:
    """Two workers push at 1 s, a second of service each: the first is at 0.5 s of it when the server goes for 2 s."""
    found = stated({"name": "server_down", "at_s": 1.5, "for_s": 2.0}, budget={"updates": 2},
                   server={"push_s": 1.0, "count": servers})  # fmt: skip
    assert (found.applies["end_s"] / SECOND).tolist() == [4.5, 5.5]
    assert found.simulation.machine.queues[0].busy_ns == 2.5 * SECOND, "half a second of it in vain"


@pytest.mark.parametrize("servers", [1, 2])
def test_what_comes_to_a_server_that_is_down_waits_for_it(servers: int) -> None:
    """Nothing is there when it goes, at 0.5 s; twice at once is no worse than once."""
    downs = [{"name": "server_down", "at_s": 0.5, "for_s": length} for length in (2.0, 1.0)]
    found = stated(*downs, budget={"updates": 2}, server={"push_s": 1.0, "count": servers})
    assert (found.applies["end_s"] / SECOND).tolist() == [3.5, 4.5]
    again = stated(*downs, {"name": "server_down", "at_s": 2.75, "for_s": 1.0}, budget={"updates": 2},
                   server={"push_s": 1.0, "count": servers})  # fmt: skip
    assert (again.applies["end_s"] / SECOND).tolist() == [4.75, 5.75]


def happenings(workers: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Schedules of a few seconds."""
    times = st.integers(0, 24).map(lambda quarters: quarters / 4)
    lengths = st.integers(1, 12).map(lambda quarters: quarters / 4)
    numbers = st.integers(0, workers - 1)
    kill = st.fixed_dictionaries({"name": st.just("kill"), "worker": numbers, "at_s": times, "repair_s": times})
    down = st.fixed_dictionaries({"name": st.just("server_down"), "at_s": times, "for_s": lengths})
    span = {"worker": numbers, "at_s": times, "until_s": lengths}
    slow = st.fixed_dictionaries({"name": st.just("slow"), "factor": st.sampled_from([1.0, 2.5, 10.0]), **span})
    stop = st.fixed_dictionaries({"name": st.just("stop"), **span})
    later = st.one_of(slow, stop).map(lambda one: one | {"until_s": one["at_s"] + one["until_s"]})
    return st.lists(st.one_of(kill, down, later), max_size=6)


@given(
    schedule=happenings(3),
    algorithm=st.sampled_from([
        {"name": "asgd", "n_sync": 2}, {"name": "sync_sgd", "n_sync": 1}, {"name": "ssp", "n_sync": 1, "bound": 1},
        {"name": "downpour", "n_sync": 2, "depth": 2},
    ]),
    servers=st.integers(1, 2),
    fetch_s=st.sampled_from([0.0, 0.125]),
    shared=st.booleans(),
)  # fmt: skip
@settings(max_examples=60)
def test_whatever_is_scheduled_the_invariants_hold_and_the_same_happens_twice(
    schedule: list[dict[str, Any]], algorithm: dict[str, Any], servers: int, fetch_s: float, shared: bool
) -> None:
    """`simulate` checks them."""
    hardware = {
        "server": {"push_s": 0.25, "fetch_s": fetch_s, "count": servers},
        "link": {"latency_s": 0.0625, "bandwidth_bytes_per_s": 16.0, "shared": shared},
    }
    data = scenario(TIMING | {"size_bytes": 4}, algorithm, 3, {"minibatches": 40}, hardware,
                    faults={"schedule": schedule})  # fmt: skip
    first, second = simulate(data), simulate(data)
    assert first.effects.equals(second.effects)
    assert first.simulation.server.minibatches == 40
