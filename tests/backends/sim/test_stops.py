"""Leases that are over before their minibatches are taken, and versions that wait for a time: in virtual time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from asgd_lab.backends.build import build_algorithm
from asgd_lab.backends.sim.accounts import WASTED
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.algorithms import Algorithm
from asgd_lab.protocol.gates import APPLY, HOLD, KEEP, Gate, Verdict, View, drop
from asgd_lab.protocol.messages import PushRequest, Reason
from asgd_lab.scenario import Scenario
from tests.backends.invariants import wasted
from tests.backends.sim.laws import SECOND
from tests.backends.virtual import TIMING, Run, attempt, scenario, simulate
from tests.whole import sample


class Ringmaster(Gate):
    """Ringmaster ASGD (Maranjyan et al. 2025, arXiv:2501.16168): what is staler than `bound` is dropped and stopped."""

    bound: int

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        return APPLY if server.version - push.base <= self.bound else drop(Reason.STALE)

    def stops(self, server: View) -> Iterable[int]:
        return [each for each in server.owing if server.version - server.member(each).lease_version > self.bound]


class Buffered(Gate):
    """A version of every two pushes, whose workers go on meanwhile (FedBuff: Nguyen et al. 2022)."""

    collects = True
    keeps = 2

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        return KEEP

    def complete(self, server: View) -> bool:
        return len(server.kept) == 2


class Punctual(Gate):
    """A version every `every_ns` of what has come by then; who has come waits."""

    every_ns: int
    collects = True

    def on_push(self, push: PushRequest, server: View) -> Verdict:
        return HOLD

    def complete(self, server: View) -> bool:
        return server.now_ns % self.every_ns == 0

    def wake_ns(self, server: View) -> int | None:
        return (server.now_ns // self.every_ns + 1) * self.every_ns if server.kept else None


def with_gate(gate: Gate, data: Scenario, carry_out: Callable[[Scenario], Run] = simulate) -> Run:
    """Run a scenario whose algorithm has this gate."""

    def build(stated: Scenario) -> Algorithm:
        return dataclasses.replace(build_algorithm(stated), gate=gate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asgd_lab.backends.sim.simulation.build_algorithm", build)
        return carry_out(data)


def run(gate: Gate, budget: dict[str, Any], speeds: list[float], n_sync: int = 8, **more: Any) -> Run:
    hardware = {"compute": {"step_s": 1.0}, "speeds": speeds, "link": {"latency_s": 0.25}} | more.pop("hardware", {})
    algorithm = {"name": "asgd", "n_sync": n_sync}
    return with_gate(gate, scenario(TIMING, algorithm, len(speeds), budget, hardware, **more))


def of(found: Run, worker: int, kind: str) -> list[tuple[float, float, int]]:
    """(start, end, minibatches) of a worker's effects of a kind, in seconds."""
    rows = found.rows(kind)
    rows = rows[rows["worker"] == worker]
    columns = (rows["start_s"] / SECOND, rows["end_s"] / SECOND, rows["steps"])
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_stop_ends_the_minibatch_under_way_a_latency_after_the_server_says_it() -> None:
    """By hand: the fast worker's second push makes version 2 at 3.75 s, so that version 0 of the other is too stale.

    It hears so at 4 s, half way through its fourth minibatch, which began at 3.5 s; then it fetches anew.
    """
    found = run(Ringmaster(1), {"updates": 3}, [8.0, 1.0])
    assert of(found, 0, "train") == [(0.5, 1.5, 8), (2.5, 3.5, 8), (4.5, 5.5, 8)]
    assert of(found, 1, "train") == [(0.5, 4.5, 4)]
    assert of(found, 1, "fetch") == [(0.0, 0.5, 8), (4.5, 5.0, 8)]
    time = found.outcome.facts["time"]
    assert time["per_worker"][1]["wasted"] == 4.0
    assert time["per_worker"][1]["compute"] == 0.75, "from 5 s to the end"
    assert time["per_worker"][0]["wasted"] == 0
    assert found.outcome.facts["wasted_minibatches"] == found.simulation.server.wasted == 4


# Minibatches of a lease and of a push: pushes of a part of a lease may be on their way when it is stopped.
LEASES = [(8, 3), (8, 2), (7, 7), (3, 5), (9, 1), (5, 4)]
PROGRAMS: dict[str, tuple[str, int]] = {  # the algorithm, and independent servers
    "blocking": ("asgd", 1),
    "blocking, two servers": ("asgd", 2),
    "overlapped": ("tests.backends.stopping:StoppingAhead", 1),
    "in parts": ("tests.backends.stopping:Fragments", 1),
}
TIMES_S = list(itertools.product([0.0, 0.25, 1.3, 4.0], [0.0, 0.4, 3.0]))  # of a latency, and of a push at the server


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_wasted_time_is_that_of_the_wasted_minibatches(program: str) -> None:
    """Each takes a second, also if the worker hears of the stop between two minibatches, while its push waits."""
    name, servers = PROGRAMS[program]
    stopped = 0
    for (n_fetch, n_push), (latency_s, push_s) in sample(list(itertools.product(LEASES, TIMES_S)), 8):
        keys = {"n_sync": n_fetch} if program == "in parts" else {"n_fetch": n_fetch, "n_push": n_push}
        hardware = {
            "compute": {"step_s": 1.0}, "link": {"latency_s": latency_s},
            "server": {"push_s": push_s, "count": servers, "independent": servers > 1},
        }  # fmt: skip
        stated = scenario(TIMING | {"size_bytes": 1000}, {"name": name, **keys}, 4, {"updates": 25}, hardware)
        sim = with_gate(Ringmaster(1), stated, attempt).simulation
        spent_ns = sum(account.spent_ns[WASTED] for account in sim.accounts)
        assert spent_ns == wasted(sim) * SECOND, (n_fetch, n_push, latency_s, push_s)
        stopped += sim.server.wasted
    assert stopped, "there were stops"


def test_where_nobody_is_stopped_nothing_is_wasted_and_no_heading_says_so() -> None:
    found = run(Ringmaster(100), {"updates": 3}, [8.0, 1.0])
    assert "wasted" not in found.outcome.facts["time"]["mean"]
    assert "wasted_minibatches" not in found.outcome.facts


def test_the_times_of_minibatches_that_were_not_taken_are_those_of_the_next() -> None:
    """A worker's times are drawn a minibatch: stopped or not, the same are taken in the same order."""
    drawn = {"compute": {"step_s": 1.0, "distribution": "exponential"}, "link": {"latency_s": 0.25}}
    stopped = run(Ringmaster(0), {"updates": 12}, [8.0, 1.0], hardware=drawn)
    freely = run(Ringmaster(100), {"updates": 12}, [8.0, 1.0], n_sync=1, hardware=drawn)
    lengths = [end - start for start, end, steps in of(freely, 1, "train") if steps == 1]
    begun = 0
    for start, end, steps in of(stopped, 1, "train"):
        known = lengths[begun : begun + steps]
        if len(known) == steps:
            assert end - start == pytest.approx(sum(known))
        begun += steps
    assert stopped.simulation.server.wasted > 0


def test_a_stop_that_comes_while_its_worker_stands_still_is_heard_afterwards() -> None:
    """It stands still from 2 to 6 s, half way through its second minibatch, which ends at 6.5 s."""
    schedule = [{"name": "stop", "worker": 1, "at_s": 2.0, "until_s": 6.0}]
    found = run(Ringmaster(1), {"updates": 4}, [8.0, 1.0], faults={"schedule": schedule})
    assert of(found, 1, "train") == [(0.5, 6.5, 2)]


def test_a_stop_on_a_device_that_is_shared_ends_the_minibatch_under_way_at_its_pace() -> None:
    """Two slow workers on one device have half of it each: four minibatches of theirs would take 8 s."""
    found = run(Ringmaster(1), {"updates": 5}, [1.0, 1.0, 16.0, 16.0],
                hardware={"device": {"workers": 2}, "link": {"latency_s": 0.25}})  # fmt: skip
    first = {worker: of(found, worker, "train")[0] for worker in (0, 1)}
    assert all(end - start == pytest.approx(2 * steps, abs=1e-6) and steps < 8 for start, end, steps in first.values())


def test_workers_go_on_while_the_server_keeps_their_pushes() -> None:
    found = run(Buffered(), {"updates": 3}, [1.0, 1.0], n_sync=1, hardware={"link": {"latency_s": 0.0}})
    assert [end for _, end, _ in of(found, 0, "train")] == [1.0, 2.0, 3.0]
    applies = found.applies
    assert applies["version"].tolist() == [1, 1, 2, 2, 3, 3]
    assert found.summary()["minibatches"] == 6


def test_a_server_that_waits_for_a_time_is_woken_at_it() -> None:
    """Pushes of 1 s and of 1.5 s: what has come by 2 s makes a version, and so on."""
    found = run(Punctual(2 * SECOND), {"updates": 3}, [1.0, 1 / 1.5, 1 / 8], n_sync=1,
                hardware={"link": {"latency_s": 0.0}})  # fmt: skip
    assert found.simulation.end_ns == 6 * SECOND
    done = of(found, 0, "push")
    assert [end for _, end, _ in done] == [2.0, 4.0, 6.0]


def test_rounds_that_may_be_stopped_are_not_batched() -> None:
    task = {"name": "quadratic", "curvature": [1.0, 0.5], "optimizer": {"name": "SGD", "lr": 0.1}}
    data = scenario(
        task, {"name": "asgd", "n_sync": 2}, 2, {"updates": 4}, backend={"name": "sim", "numerics": "batched"}
    )
    with pytest.raises(ScenarioError, match="cannot be batched where the algorithm may stop a worker"):
        with_gate(Ringmaster(1), data)


SGD = {"name": "SGD", "lr": 0.05, "momentum": 0.5}
QUADRATIC = {"name": "quadratic", "curvature": [1.0, 0.3], "noise": 0.1, "optimizer": SGD}
COMPUTES = st.sampled_from(["constant", "exponential", "lognormal"])


@given(
    gate=st.builds(Ringmaster, st.integers(0, 3)),
    algorithm=st.one_of(
        st.builds(lambda n: {"name": "asgd", "n_sync": n}, st.integers(1, 6)),
        st.builds(lambda f, p: {"name": "asgd", "n_fetch": f, "n_push": p}, st.integers(1, 5), st.integers(1, 5)),
    ),
    task=st.sampled_from([TIMING | {"size_bytes": 1000}, QUADRATIC]),
    workers=st.integers(1, 5),
    budget=st.sampled_from([{"updates": 25}, {"minibatches": 61}, {"seconds": 19.7}]),
    compute=COMPUTES,
    link=st.sampled_from([
        {}, {"latency_s": 0.3}, {"latency_s": 0.1, "bandwidth_bytes_per_s": 2000.0, "shared": True},
    ]),
    machine=st.sampled_from([{}, {"device": {"workers": 2}}, {"cores": 2}, {"host": {"workers": 2, "cores": 1}}]),
    faults=st.sampled_from([None, {
        "mean_time_between_failures_s": 9.0, "mean_time_to_repair_s": 1.0, "detect_s": 0.5
    }]),
    servers=st.integers(1, 2),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=50)
def test_with_stops_every_run_obeys_the_laws_that_hold_in_every_run(
    gate: Gate, algorithm: dict[str, Any], task: dict[str, Any], workers: int, budget: dict[str, Any], compute: str,
    link: dict[str, Any], machine: dict[str, Any], faults: dict[str, Any] | None, servers: int, seed: int,
) -> None:  # fmt: skip
    """`simulate` checks them; and the same happens twice."""
    speeds = [1.0, 4.0, 0.5]
    hardware = {"compute": {"step_s": 1.0, "distribution": compute}, "link": link, "speeds": speeds, **machine}
    hardware["server"] = {"push_s": 0.05, "count": servers if "cores" not in machine else 1}
    more = {} if faults is None else {"faults": faults}
    data = scenario(task, algorithm, workers, budget, hardware, seed=seed, **more)
    first, second = with_gate(gate, data), with_gate(gate, data)
    assert first.effects.equals(second.effects)
    if "minibatches" in budget:
        assert first.simulation.server.minibatches == 61
