"""Several servers: of one order, they are one server; independent, each is one of its own, of its slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.backends.sim.laws import SECOND, Floats
from tests.backends.virtual import TIMING, Run, scenario, simulate

QUADRATIC = {
    "name": "quadratic",
    "curvature": [1.0, 0.7, 0.5, 0.3, 0.2, 0.1],
    "noise": 0.05,
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.5},
}
LOGNORMAL = {"distribution": "lognormal", "cv": 0.8, "step_s": 1.0}


def run(servers: int, workers: int, independent: bool = False, seed: int = 0, **hardware: Any) -> Run:
    """Real gradients of a small bowl, in coordinates that are divided among the servers."""
    server = {"count": servers, "independent": independent, **hardware.pop("server", {})}
    algorithm = {"name": "asgd", "n_sync": 2, "rule": ["scale", {"name": "momentum", "beta": 0.5}]}
    hardware = {"compute": LOGNORMAL, **hardware, "server": server}
    return simulate(scenario(QUADRATIC, algorithm, workers, {"minibatches": 80}, hardware, seed=seed))


def params(run: Run) -> list[float]:
    assert run.outcome.params is not None
    return run.outcome.params.tolist()


def order(run: Run) -> list[tuple[int, int]]:
    """(worker, version) of the pushes, as versions of the first part were made."""
    pushes = run.rows("push").query("shard <= 0").sort_values("version")
    return list(zip(pushes["worker"].tolist(), pushes["version"].tolist(), strict=True))


SLOW = {"link": {"bandwidth_bytes_per_s": 200.0, "latency_s": 0.01}, "server": {"push_s": 0.02, "fetch_s": 0.01}}


@pytest.mark.parametrize("servers", [2, 3, 6])
@pytest.mark.parametrize("workers", [1, 4])
def test_servers_of_one_order_give_the_parameters_of_one_server(servers: int, workers: int) -> None:
    """To the bit, where timing makes the same order; here the workers' own links limit, whatever the slices."""
    one, several = run(1, workers, **SLOW), run(servers, workers, **SLOW)
    assert order(several) == order(one)
    assert params(several) == params(one)


@pytest.mark.parametrize("servers", [2, 3])
def test_servers_of_one_order_take_no_longer_than_one_where_they_are_the_bottleneck(servers: int) -> None:
    """Work by the byte is divided, so that a saturated server makes K times as many versions a second."""
    hardware = {"server": {"push_bytes_per_s": 24 / 2.0, "count": 1}, "compute": {"step_s": 0.1}}
    slow = simulate(scenario(QUADRATIC, {"name": "asgd", "n_sync": 1}, 4, {"updates": 40}, hardware))
    hardware["server"]["count"] = servers
    fast = simulate(scenario(QUADRATIC, {"name": "asgd", "n_sync": 1}, 4, {"updates": 40}, hardware))
    period = [np.diff(each.applies["end_s"].to_numpy())[10:] / SECOND for each in (slow, fast)]
    assert set(period[0]) == {2.0}
    assert period[1] == pytest.approx(2.0 / servers)


@pytest.mark.parametrize("servers", [2, 3])
def test_independent_servers_give_one_workers_parameters_whatever_their_timing(servers: int) -> None:
    """With one worker every slice goes through the same versions."""
    groups = {
        "groups": [{"name": "all"}],
        "links": [{"group": "all", "servers": [servers - 1], "latency_s": 0.3, "bandwidth_bytes_per_s": 50.0}],
    }
    one = run(1, 1)
    several = run(servers, 1, independent=True, **SLOW, **groups)
    assert params(several) == params(one)
    assert all(each["max"] == 0 for each in several.summary()["staleness_per_shard"])


@pytest.mark.parametrize("servers", [2, 3])
def test_independent_servers_that_are_alike_and_free_are_one(servers: int) -> None:
    """Where nothing takes time all slices arrive together, and all servers have the order of one."""
    one, several = run(1, 4), run(servers, 4, independent=True)
    assert order(several) == order(one)
    assert params(several) == params(one)
    found = several.summary()["staleness_per_shard"]
    assert found == [found[0]] * servers


def test_a_push_to_independent_servers_is_done_when_the_farthest_has_answered() -> None:
    """Server 1 is 10 s away, server 0 none: a fetch is 20 s there and back, a push likewise, a minibatch 1 s."""
    hardware = {
        "groups": [{"name": "all"}],
        "links": [{"group": "all", "servers": [1], "latency_s": 10.0}],
        "server": {"count": 2, "independent": True},
    }
    far = simulate(scenario(TIMING, {"name": "asgd", "n_sync": 1}, 1, {"updates": 2}, hardware))
    first = {kind: far.rows(kind).query("shard == 1").sort_values("start_s").iloc[0] for kind in ("fetch", "push")}
    assert (first["fetch"]["start_s"], first["fetch"]["end_s"]) == (0, 20 * SECOND)
    assert (first["push"]["start_s"], first["push"]["end_s"]) == (21 * SECOND, 41 * SECOND)


# ---------------------------------------------------------------- independent servers, recounted


@dataclass
class Shard:
    """What a server of its own sees: reads and applies in order of time, with who and of which round."""

    events: list[tuple[int, int, str, int]]  # (nanoseconds, worker, read or apply, round)

    def replay(self, curvature: Floats, steps: int, lr: float) -> tuple[Floats, list[int]]:
        """(parameters, staleness of each version) of GD on these coordinates, deltas added as they are."""
        now, version = np.ones(len(curvature)), 0
        read: dict[int, tuple[Floats, int]] = {}
        stale = []
        for _, worker, what, _ in self.events:
            if what == "read":
                read[worker] = now.copy(), version
            else:
                center, base = read[worker]
                local = center * (1 - lr * curvature) ** steps
                now = now + (local - center)
                stale.append(version - base)
                version += 1
        return now, stale


def shards(run: Run, latencies: list[list[int]]) -> list[Shard]:
    """Reads and applies at each server, from the workers' rows: everything but latency is free."""
    found = []
    for server in range(len(latencies[0])):
        events = []
        for kind, what in (("fetch", "read"), ("push", "apply")):
            rows = run.rows(kind).query("shard == @server")
            for worker, round, start in zip(rows["worker"], rows["round"], rows["start_s"], strict=True):
                events.append((int(start) + latencies[worker][server], int(worker), what, int(round)))
        found.append(Shard(sorted(events)))
    return found


@given(
    far=st.sampled_from([0.0, 0.2, 1.1]),
    workers=st.integers(1, 4),
    n_sync=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_each_independent_server_makes_versions_of_its_own_in_its_own_order(
    far: float, workers: int, n_sync: int, seed: int
) -> None:
    """Coordinates of a bowl do not know of one another: each server's end as if it were alone, in its order.

    Recounted from the workers' rows: when each read and each push came to each server; and the same for staleness.
    """
    near_s, updates, lr = 0.05, 40, 0.3
    curvature = np.array([1.0, 0.5, 0.25, 0.8])
    latencies = [[round(near_s * SECOND)] * 2 for _ in range(workers)]
    latencies[0][1] = round(far * SECOND)
    hardware = {
        "compute": LOGNORMAL,
        "link": {"latency_s": near_s},
        "groups": [{"name": "far", "workers": 1}, {"name": "near"}],
        "links": [{"group": "far", "servers": [1], "latency_s": far}],
        "server": {"count": 2, "independent": True},
    }
    task = {"name": "quadratic", "curvature": curvature.tolist(), "optimizer": {"name": "SGD", "lr": lr}}
    algorithm = {"name": "asgd", "n_sync": n_sync, "rule": ["add"]}
    found = simulate(scenario(task, algorithm, workers, {"minibatches": n_sync * updates}, hardware, seed=seed))
    ends = []
    for server, shard in enumerate(shards(found, latencies)):
        applied = found.applies[found.applies["shard"] == server]
        end, stale = shard.replay(curvature[2 * server : 2 * server + 2], n_sync, lr)
        assert applied["version"].tolist() == list(range(1, updates + 1))
        assert applied["staleness"].tolist() == stale
        facts = found.summary()["staleness_per_shard"][server]
        assert facts["mean"] == pytest.approx(np.mean(stale))
        assert facts["max"] == max(stale)
        ends += end.tolist()
    assert params(found) == pytest.approx(ends, abs=1e-5)


@given(
    workers=st.integers(1, 5),
    servers=st.integers(2, 3),
    far=st.sampled_from([0.0, 0.4, 2.0]),
    budget=st.sampled_from([{"minibatches": 31}, {"updates": 15}]),
    algorithm=st.sampled_from(
        [{"name": "asgd", "n_sync": 2}, {"name": "asgd", "n_fetch": 1, "n_push": 3}]
        + [{"name": "downpour", "n_sync": 2, "depth": depth} for depth in (1, 2)]
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_a_budget_is_used_exactly_though_slices_arrive_at_different_times(
    workers: int, servers: int, far: float, budget: dict[str, int], algorithm: dict[str, Any], seed: int
) -> None:
    """The run is over when the last slice of the last push is in its version, and no version has half a push."""
    hardware = {
        "compute": LOGNORMAL,
        "link": {"latency_s": 0.1, "bandwidth_bytes_per_s": 4e3},
        "groups": [{"name": "far", "workers": 1}, {"name": "near"}],
        "links": [{"group": "far", "servers": [servers - 1], "latency_s": far}],
        "server": {"count": servers, "independent": True, "push_s": 0.05, "fetch_s": 0.02},
    }
    found = simulate(scenario(TIMING | {"size_bytes": 600}, algorithm, workers, budget, hardware, seed=seed))
    summary = found.summary()
    assert summary["minibatches"] == found.simulation.server.minibatches
    for key, value in budget.items():
        assert summary[key] == value
    if "minibatches" in budget:  # no push is under way when the last minibatch is in its versions
        assert {at.version for at in found.simulation.server.parts} == {summary["updates"]}
        assert found.applies.groupby("shard").size().tolist() == [summary["updates"]] * servers

    ends = found.applies.assign(applied=found.applies["version"] > 0)
    whole = ends.groupby(["client", "incarnation", "round"])["applied"].sum()
    first = ends[(ends["shard"] == 0) & ends["applied"]].set_index(["client", "incarnation", "round"])
    assert (whole.loc[first.index] == servers).all(), "a push that is in a version of the first part is in all parts"


def test_a_one_sided_fetch_passes_by_independent_servers_too() -> None:
    """Two workers, pushes of 5 s: the first reads again as soon as its push is applied, beside the other's."""
    server = {"count": 2, "independent": True, "push_s": 5.0, "one_sided_fetch": True}
    found = simulate(scenario(workers=2, budget={"updates": 4}, hardware={"server": server}))
    fetches = found.rows("fetch")
    assert (fetches["end_s"] == fetches["start_s"]).all()
