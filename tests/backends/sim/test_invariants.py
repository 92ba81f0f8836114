"""Runs over drawn machines, algorithms, budgets and faults, each held against what every run must obey.

`simulate` checks the invariants: the accounts, the utilisation law, Little's law for servers and links, bytes, work,
and staleness recounted. Here are scenarios that nobody would have thought of.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from asgd_lab.backends.sim.accounts import HEADINGS
from tests.backends.sim.laws import EXPONENTIAL, SECOND
from tests.backends.virtual import TIMING, Run, scenario, simulate

few = st.integers(1, 3)


def maybe(value: Any) -> st.SearchStrategy[Any]:
    return st.none() | st.just(value)


algorithms = st.one_of(
    st.fixed_dictionaries({"name": st.just("asgd"), "n_fetch": few, "n_push": few}),
    st.fixed_dictionaries({"name": st.just("downpour"), "n_fetch": few, "n_push": few, "depth": few}),
    st.fixed_dictionaries({"name": st.just("ssp"), "n_sync": few, "bound": st.integers(0, 2)}),
    st.fixed_dictionaries({"name": st.just("sync_sgd"), "n_sync": few}),
)
links = st.one_of(
    st.just({}),
    st.builds(
        lambda latency, up, down: {"latency_s": latency, "up_bytes_per_s": up, "down_bytes_per_s": down},
        st.sampled_from([0.0, 0.1, 0.5]),
        st.sampled_from([None, 900.0, 3000.0]),
        st.sampled_from([None, 1500.0]),
    ),
    st.builds(
        lambda latency, width, flow: {
            "latency_s": latency, "bandwidth_bytes_per_s": width, "shared": True, "flow_bytes_per_s": flow
        },
        st.sampled_from([0.0, 0.2]),
        st.sampled_from([1000.0, 2500.0]),
        maybe(800.0),
    ),
)  # fmt: skip
hosts = st.one_of(
    st.just({}),
    st.just({"host": {"workers": 2, "bandwidth_bytes_per_s": 1500.0}}),
    st.just({"host": {"workers": 2, "cores": 1}, "device": {"workers": 2}}),
    st.just({"host": {"workers": 3, "cores": 2}}),
    st.just({"slow_phases": {"every_s": 5.0, "length_s": 2.0, "factor": 3.0}, "speeds": [1.0, 2.0]}),
)
budgets = st.sampled_from([{"updates": 25}, {"minibatches": 41}, {"seconds": 19.7}, {"updates": 90, "seconds": 30.0}])


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """The parts of a scenario that makes sense."""
    algorithm, hardware = draw(algorithms), {"link": draw(links), **draw(hosts)}
    server: dict[str, Any] = {
        "push_s": draw(st.sampled_from([0.0, 0.1, 0.4])),
        "fetch_s": draw(st.sampled_from([0.0, 0.1])),
        "distribution": draw(st.sampled_from(["constant", "exponential"])),
        "bandwidth_bytes_per_s": draw(maybe(2000.0)),
    }
    server["one_sided_fetch"] = not server["fetch_s"] and draw(st.booleans())
    parts: dict[str, Any] = {}
    kind = draw(st.sampled_from(["one", "shared cores", "ordered", "independent"]))
    if kind in ("ordered", "independent"):
        server["count"] = draw(st.integers(2, 3))
    if kind == "independent" and algorithm["name"] in ("asgd", "downpour"):
        server["independent"] = True
    if draw(st.booleans()):
        parts["faults"] = {
            "mean_time_between_failures_s": draw(st.sampled_from([3.0, 15.0])),
            "mean_time_to_repair_s": draw(st.sampled_from([0.5, 3.0])),
            "detect_s": draw(st.sampled_from([0.0, 0.7, 10.0])),
        }
    if kind == "shared cores" and "cores" not in hardware.get("host", {}) and "slow_phases" not in hardware:
        hardware["cores"] = draw(st.integers(1, 2))
    if draw(st.booleans()):
        to = draw(maybe([server.get("count", 1) - 1]))
        hardware["groups"] = [{"name": "far", "workers": 1, "speed": 0.5}, {"name": "near"}]
        hardware["links"] = [{"group": "far", "servers": to, **draw(links)}]
    compute = draw(st.sampled_from(["constant", "exponential", "lognormal", "gamma"]))
    client = draw(st.sampled_from([{}, {"push_s": 0.3, "fetch_s": 0.2}]))
    staging = draw(st.sampled_from([{}, {"latency_s": 0.01, "to_host_bytes_per_s": 5e3, "to_device_bytes_per_s": 2e3}]))
    hardware |= {"compute": {"distribution": compute}, "client": client, "staging": staging, "server": server}
    return parts | {
        "task": TIMING | {"size_bytes": draw(st.sampled_from([0, 1000]))},
        "algorithm": algorithm,
        "workers": draw(st.integers(1, 5)),
        "budget": draw(budgets),
        "hardware": hardware,
        "seed": draw(st.integers(0, 99)),
    }


@given(parts=scenarios())
@settings(max_examples=150)
def test_every_run_obeys_the_laws_that_hold_in_every_run(parts: dict[str, Any]) -> None:
    simulate(scenario(**parts))


# ---------------------------------------------------------------- the headings, by hand


def spent(run: Run, worker: int = 0) -> dict[str, float]:
    """Seconds of one worker under each heading that has any."""
    account = run.simulation.accounts[worker]
    return {name: ns / SECOND for name, ns in zip(HEADINGS, account.spent_ns, strict=True) if ns}


def test_each_stage_of_a_round_is_under_its_heading() -> None:
    """Two rounds of one worker, cut at the second push's application: all but the answer to it."""
    hardware = {
        "client": {"push_s": 0.5, "fetch_s": 0.25},
        "staging": {"latency_s": 0.125, "to_host_bytes_per_s": 1000, "to_device_bytes_per_s": 2000},
        "link": {"latency_s": 0.0625, "bandwidth_bytes_per_s": 500},
        "server": {"push_s": 3.0, "fetch_s": 1.5},
    }
    run = simulate(scenario(TIMING | {"size_bytes": 1000}, {"name": "asgd", "n_sync": 4}, 1, {"updates": 2}, hardware))
    assert spent(run) == {
        "compute": 2 * 4.0,
        "client": 2 * (0.5 + 0.25),
        "staging": 2 * (0.125 + 1.0 + 0.125 + 0.5),
        "link": 2 * (2.0 + 2.0 + 3 * 0.0625) + 0.0625,
        "queue": 2 * (3.0 + 1.5),
    }


def test_waiting_for_others_is_under_the_queue_or_the_gate() -> None:
    """Push of 1 s each: 1 waits for 0's at the server. In lock-step 0 waits for 1 at the gate as well."""
    hardware = {"server": {"push_s": 1.0}}
    run = simulate(scenario(workers=2, budget={"updates": 2}, hardware=hardware))
    assert spent(run, 0) == {"compute": 2.0, "queue": 1.0}
    assert spent(run, 1) == {"compute": 1.0, "queue": 2.0}
    run = simulate(
        scenario(algorithm={"name": "sync_sgd", "n_sync": 1}, workers=2, budget={"updates": 1}, hardware=hardware)
    )
    assert spent(run, 0) == {"compute": 1.0, "queue": 1.0, "gate": 1.0}
    assert spent(run, 1) == {"compute": 1.0, "queue": 2.0}


def test_of_exchanges_that_overlap_the_one_waited_for_first_is_charged_first() -> None:
    """Downpour, two minibatches for two workers; fetches of 2 s at the server, pushes of 6 s on the link.

    Worker 0: fetch until 2, minibatch until 3; what it has asked for at 2 is served from 4 to 6, after worker 1; its
    push is on the link until 9. Then it asks once more, is served until 11, and waits for worker 1, whose minibatch
    takes from 4 to 24 and its push until 30.
    """
    hardware = {
        "speeds": [1.0, 0.05],
        "link": {"up_bytes_per_s": 1000 / 6},
        "server": {"fetch_s": 2.0},
    }
    algorithm = {"name": "downpour", "n_sync": 1}
    run = simulate(scenario(TIMING | {"size_bytes": 1000}, algorithm, 2, {"minibatches": 2}, hardware))
    assert spent(run, 0) == {"compute": 1.0, "queue": 2.0 + 3.0 + 2.0, "link": pytest.approx(3.0), "gate": 19.0}
    assert spent(run, 1) == {"compute": 20.0, "queue": 4.0, "link": pytest.approx(6.0)}


@pytest.mark.parametrize("rhythm", [(1, 2, 1), (2, 3, 1), (3, 2, 1), (2, 1, 2)])
def test_what_is_known_ahead_is_not_charged_ahead(rhythm: tuple[int, int, int]) -> None:
    """Copies and software of 2.9 s after each fetch, which overlap with pushes: a run may end in the middle of them."""
    n_fetch, n_push, depth = rhythm
    algorithm = {"name": "downpour", "n_fetch": n_fetch, "n_push": n_push, "depth": depth}
    hardware = EXPONENTIAL | {
        "client": {"push_s": 0.3, "fetch_s": 1.9},
        "staging": {"to_device_bytes_per_s": 1000},
    }
    for seed in range(8):
        simulate(scenario(TIMING | {"size_bytes": 1000}, algorithm, 3, {"updates": 12}, hardware, seed=seed))


def test_who_has_nothing_left_to_do_waits_at_the_gate() -> None:
    """One minibatch for two workers: 1 is granted nothing while 0 may still fail."""
    run = simulate(scenario(workers=2, budget={"minibatches": 1}, hardware={}))
    assert spent(run, 0) == {"compute": 1.0}
    assert spent(run, 1) == {"gate": 1.0}


@pytest.mark.parametrize("every", [1, 7])
def test_a_mean_over_the_run_is_that_of_its_parts(every: int) -> None:
    """The meters of a long run are thinned, and their parts still make the whole (checked in every run)."""
    hardware = {"server": {"push_s": 0.3}, "link": {"bandwidth_bytes_per_s": 4e3, "shared": True}}
    run = simulate(
        scenario(
            TIMING | {"size_bytes": 1000, "step_s": 1.0 * every}, workers=3, budget={"updates": 900}, hardware=hardware
        )
    )
    for one in run.outcome.facts["resources"]:
        over_time = one["over_time"]
        assert 32 <= len(over_time["end_s"]) <= 70
        assert over_time["end_s"][-1] == pytest.approx(run.outcome.makespan_ns / SECOND)
