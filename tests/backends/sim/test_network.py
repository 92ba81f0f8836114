"""Ways between workers and servers: what each passes, and what a push and a fetch take, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from asgd_lab.backends.sim.clock import Clock
from asgd_lab.backends.sim.network import DOWN, UP, Network, Route
from asgd_lab.scenario.hardware import Hardware
from tests.backends.sim.laws import SECOND
from tests.backends.virtual import TIMING, Run, scenario, simulate

BYTES = 1200  # of a vector: it divides by the small numbers of servers here


def network(workers: int, crowded: bool = False, **hardware: Any) -> Network:
    return Network(Clock(), Hardware.model_validate(hardware), workers, BYTES, crowded)


def passes(route: Route) -> list[str]:
    """The names of what a route shares with others."""
    return [] if route.sharing is None else [capacity.name for capacity in route.one.capacities]


def seconds(route: Route) -> float:
    """What a slice takes where nothing is shared."""
    assert route.sharing is None
    return route.alone_ns / SECOND


# ---------------------------------------------------------------- what a route passes


def test_a_link_of_ones_own_is_time_that_is_known() -> None:
    up, down = network(2, link={"up_bytes_per_s": 1200, "down_bytes_per_s": 600, "latency_s": 0.25}).routes
    assert [seconds(up[0][0]), seconds(down[1][0])] == [1, 2]
    assert up[0][0].latency_ns == SECOND // 4
    assert seconds(network(1).routes[UP][0][0]) == 0, "free where nothing is said"


def test_a_shared_link_is_one_capacity_in_each_direction() -> None:
    net = network(3, link={"bandwidth_bytes_per_s": 600, "shared": True})
    assert [passes(net.routes[UP][worker][0]) for worker in range(3)] == [["link up"]] * 3
    assert [passes(net.routes[DOWN][worker][0]) for worker in range(3)] == [["link down"]] * 3
    assert [capacity.name for capacity in net.capacities] == ["link down", "link up"]
    assert len(net.sharings) == 2, "the directions do not know of one another"


def test_the_workers_of_a_host_share_its_card_and_all_share_the_servers() -> None:
    net = network(
        5,
        host={"workers": 2, "bandwidth_bytes_per_s": 1e3},
        link={"bandwidth_bytes_per_s": 500},
        server={"bandwidth_bytes_per_s": 2e3},
    )
    cards = [passes(net.routes[UP][worker][0]) for worker in range(5)]
    assert cards == [[f"host {host} up", "server card up"] for host in (0, 0, 1, 1, 2)]
    assert [net.routes[UP][worker][0].one.cap for worker in range(5)] == [pytest.approx(5e-7)] * 5, "its link caps it"


def test_the_card_of_a_host_with_one_worker_only_caps_its_link() -> None:
    net = network(1, host={"bandwidth_bytes_per_s": 300}, link={"bandwidth_bytes_per_s": 600})
    assert seconds(net.routes[UP][0][0]) == 4
    net = network(1, host={"bandwidth_bytes_per_s": 900}, link={"bandwidth_bytes_per_s": 600})
    assert seconds(net.routes[UP][0][0]) == 2


def test_a_flow_cap_is_the_most_that_one_transfer_gets_of_a_shared_link() -> None:
    net = network(2, link={"bandwidth_bytes_per_s": 600, "shared": True, "flow_bytes_per_s": 200})
    assert net.routes[UP][0][0].one.cap == pytest.approx(2e-7)


def test_groups_have_links_of_their_own_to_some_servers() -> None:
    net = network(
        3,
        groups=[{"name": "far", "workers": 1}, {"name": "near"}],
        links=[
            {"group": "far", "servers": [1], "bandwidth_bytes_per_s": 100, "shared": True, "latency_s": 0.5},
            {"group": "near", "bandwidth_bytes_per_s": 400, "shared": True},
        ],
        link={"bandwidth_bytes_per_s": 300, "shared": True, "latency_s": 0.125},
        server={"count": 2},
    )
    assert [[passes(route) for route in servers] for servers in net.routes[UP]] == [
        [["link up"], ["link 0 (far) up"]],
        [["link 1 (near) up"], ["link 1 (near) up"]],
        [["link 1 (near) up"], ["link 1 (near) up"]],
    ]
    assert [route.latency_ns for route in net.routes[UP][0]] == [SECOND // 8, SECOND // 2]
    assert [route.latency_ns for route in net.routes[UP][1]] == [0, 0]
    assert {route.bytes for servers in net.routes[UP] for route in servers} == {BYTES / 2}


def test_slices_of_one_vector_share_its_workers_own_link() -> None:
    net = network(2, link={"bandwidth_bytes_per_s": 600}, server={"count": 3})
    assert [[passes(route) for route in servers] for servers in net.routes[DOWN]] == [
        [["worker 0 link down"]] * 3,
        [["worker 1 link down"]] * 3,
    ]
    assert net.capacities == [], "what is one worker's own is not listed"
    assert len(net.sharings) == 4


def test_several_transfers_of_one_worker_share_its_own_link() -> None:
    crowded = network(1, crowded=True, link={"bandwidth_bytes_per_s": 600})
    assert passes(crowded.routes[UP][0][0]) == ["worker 0 link up"]


def test_links_of_ones_own_are_metered_together() -> None:
    """Two workers, 1,200 bytes up at 600 and down at 1,200 a second: fetch 1 s, minibatch 1 s, push 2 s, in turn."""
    found = run(2, updates=6, link={"up_bytes_per_s": 600, "down_bytes_per_s": 1200})
    links = {one["name"]: one for one in found.outcome.facts["resources"]}
    assert found.outcome.makespan_ns == 3 * 4 * SECOND
    assert links["workers' links up"]["utilisation"] == pytest.approx(2 / 4)
    assert links["workers' links down"]["utilisation"] == pytest.approx(1 / 4)
    assert links["workers' links up"]["present"] == pytest.approx(2 * 2 / 4)


# ---------------------------------------------------------------- what that takes


def run(workers: int, updates: int = 3, step_s: float = 1.0, **hardware: Any) -> Run:
    """A-SGD of workers that all begin at once."""
    task = TIMING | {"size_bytes": BYTES, "step_s": step_s}
    return simulate(scenario(task, {"name": "asgd", "n_sync": 1}, workers, {"updates": updates}, hardware))


def lasts(run: Run, kind: str, round: int = 1) -> dict[int, float]:
    """Seconds of each worker's effect of that kind, in one round."""
    rows = run.rows(kind)
    rows = rows[rows["round"] == round]
    return dict(zip(rows["worker"].tolist(), ((rows["end_s"] - rows["start_s"]) / SECOND).tolist(), strict=True))


def test_a_fetch_and_a_push_take_latency_both_ways_and_the_vector_one_way() -> None:
    found = run(1, link={"up_bytes_per_s": 1200, "down_bytes_per_s": 600, "latency_s": 0.25})
    assert lasts(found, "fetch") == {0: 0.25 + 2.0 + 0.25}
    assert lasts(found, "push") == {0: 1.0 + 0.25 + 0.25}
    assert lasts(found, "down") == {0: 2.0 + 0.25}
    assert lasts(found, "up") == {0: 1.0 + 0.25}


def test_two_at_once_on_a_shared_link_take_twice_as_long() -> None:
    """Both fetch at 0 and push after their minibatch: each has half the link, in each direction."""
    found = run(2, link={"bandwidth_bytes_per_s": 600, "shared": True, "latency_s": 0.25})
    assert lasts(found, "fetch") == {0: 0.25 + 4.0 + 0.25, 1: 0.25 + 4.0 + 0.25}
    assert lasts(found, "push") == {0: 4.0 + 0.25 + 0.25, 1: 4.0 + 0.25 + 0.25}
    links = {one["name"]: one for one in found.outcome.facts["resources"]}
    assert {"link up", "link down", "server"} == set(links)


def test_an_up_and_a_down_transfer_do_not_meet() -> None:
    """Worker 1 is fast: its second fetch and the first push of worker 0 have 6 s to 7 s for themselves."""
    hardware = {"link": {"bandwidth_bytes_per_s": 1200, "shared": True}, "speeds": [1.0, 8.0]}
    found = run(2, updates=3, step_s=4.0, **hardware)
    assert lasts(found, "push") == {0: 1.0, 1: 1.0}
    assert (found.rows("up")["start_s"] / SECOND).tolist() == [2.5, 5.0, 6.0]
    assert (found.rows("down")["start_s"] / SECOND).tolist() == [0.0, 0.0, 3.5]


def test_a_late_transfer_shares_only_with_what_is_left() -> None:
    """Worker 0 pushes from 3 s, worker 1 from 4 s: 0 has had half of its vector by then, both are done at 5 and 5.5 s.

    600 bytes a second. Worker 0: 600 alone in the first second, 600 more at half the rate, in two seconds: done at 6.
    Worker 1: 600 until then, the other 600 alone: done at 7.
    """
    found = run(
        2, updates=2, step_s=3.0, link={"up_bytes_per_s": 600, "shared": True}, speeds=[1.0, 3.0 / 4.0]
    )  # fmt: skip
    ups = found.rows("up")
    assert (ups["start_s"] / SECOND).tolist() == [3.0, 4.0]
    assert (ups["end_s"] / SECOND).tolist() == [6.0, 7.0]


def test_the_workers_of_one_host_share_its_card_and_another_host_has_its_own() -> None:
    found = run(3, host={"workers": 2, "bandwidth_bytes_per_s": 1200})
    assert lasts(found, "down") == {0: 2.0, 1: 2.0, 2: 1.0}


def test_a_servers_card_is_shared_by_all_and_what_a_host_cannot_use_is_left_to_others() -> None:
    """A card of 1,200 and a host of two with 600: they have 300 each, and 600 are left to the third.

    It is done after 2 s; 600 are the host's limit, so that it is done after 4 s.
    """
    found = run(
        3, host={"workers": 2, "bandwidth_bytes_per_s": 600}, server={"bandwidth_bytes_per_s": 1200}
    )  # fmt: skip
    assert lasts(found, "down") == {0: 4.0, 1: 4.0, 2: 2.0}


def test_a_flow_cap_limits_who_is_alone() -> None:
    link = {"bandwidth_bytes_per_s": 1200, "shared": True, "flow_bytes_per_s": 400}
    assert lasts(run(1, link=link), "down") == {0: 3.0}
    assert lasts(run(2, link=link), "down") == {0: 3.0, 1: 3.0}
    assert lasts(run(6, updates=7, link=link), "down") == dict.fromkeys(range(6), 6.0)


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_slices_of_several_servers_take_as_long_as_the_whole_over_the_workers_link(servers: int) -> None:
    """The worker's own link is what limits; the servers' costs by the byte are divided, their costs a request not."""
    found = run(
        1,
        link={"bandwidth_bytes_per_s": 600, "latency_s": 0.25},
        server={"count": servers, "push_s": 0.125, "push_bytes_per_s": 4800, "fetch_s": 0.5},
    )
    assert lasts(found, "fetch") == {0: 0.25 + 0.5 + 2.0 + 0.25}
    assert lasts(found, "push") == {0: pytest.approx(2.0 + 0.25 + 0.125 + 0.25 / servers + 0.25)}


@pytest.mark.parametrize("servers", [1, 2, 4])
def test_several_servers_cards_carry_so_many_times_as_much(servers: int) -> None:
    """Four workers at once before cards of 600: each server's carries 4 slices, 4,800/K bytes."""
    found = run(4, updates=5, server={"count": servers, "bandwidth_bytes_per_s": 600})
    assert lasts(found, "down") == dict.fromkeys(range(4), pytest.approx(8.0 / servers))


def test_a_vector_is_there_when_its_slowest_slice_is() -> None:
    found = run(
        1,
        groups=[{"name": "a"}],
        links=[{"group": "a", "servers": [1], "bandwidth_bytes_per_s": 100, "latency_s": 0.5}],
        link={"bandwidth_bytes_per_s": 600, "latency_s": 0.25},
        server={"count": 2, "push_s": 0.125},
    )
    assert lasts(found, "down") == {0: 6.0 + 0.5}
    assert lasts(found, "push") == {0: 6.0 + 0.5 + 0.125 + 0.25}, "the first server answers"


def test_staging_and_software_are_each_workers_own() -> None:
    """Eight workers take as long as one: copies and client software do not meet."""
    hardware = {
        "client": {"push_s": 0.5, "fetch_s": 0.25},
        "staging": {"latency_s": 0.125, "to_host_bytes_per_s": 1200, "to_device_bytes_per_s": 2400},
    }
    for workers in (1, 8):
        found = run(workers, updates=workers + 1, **hardware)
        assert lasts(found, "push") == dict.fromkeys(range(workers), 0.5 + 0.125 + 1.0)
        assert lasts(found, "fetch") == dict.fromkeys(range(workers), 0.125 + 0.5 + 0.25)
        assert lasts(found, "to_host") == dict.fromkeys(range(workers), 1.125)
        assert lasts(found, "to_device") == dict.fromkeys(range(workers), 0.625)


def test_software_shares_the_cores_of_its_host() -> None:
    """Three workers on two cores: each piece of software takes 3/2 of its time, beside the others'."""
    found = run(
        3,
        updates=4,
        host={"workers": 3, "cores": 2},
        device={"workers": 1},
        client={"push_s": 0.5, "fetch_s": 1.0},
    )
    assert lasts(found, "fetch") == dict.fromkeys(range(3), pytest.approx(1.5))


@pytest.mark.parametrize("sharing", [1, 2, 3])
def test_workers_on_one_device_compute_in_turn_of_equal_shares(sharing: int) -> None:
    found = run(sharing, updates=2 * sharing, host={"workers": sharing}, device={"workers": sharing})
    assert lasts(found, "train") == dict.fromkeys(range(sharing), pytest.approx(float(sharing)))


def test_the_servers_cost_by_the_byte_and_a_one_sided_fetch_that_has_none() -> None:
    found = run(1, server={"push_s": 0.25, "push_bytes_per_s": 2400, "fetch_s": 0.125, "fetch_bytes_per_s": 1200})
    assert lasts(found, "push") == {0: 0.25 + 0.5}
    assert lasts(found, "fetch") == {0: 0.125 + 1.0}
    found = run(2, server={"push_s": 5.0, "one_sided_fetch": True})
    assert lasts(found, "fetch", 2)[0] == 0, "it reads while the server applies the other's push"
    found = run(2, server={"push_s": 5.0, "fetch_s": 1.0})
    assert lasts(found, "fetch", 2)[0] == 5.0 + 1.0, "it waits for the other's push"
