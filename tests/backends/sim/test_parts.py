"""Exchanges of single parts of the vector: several under way at once, each with its share of the bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from asgd_lab import extending as lab
from asgd_lab.backends.build import build_algorithm, build_budget, build_task
from asgd_lab.backends.inline import Inline
from tests.backends.invariants import (
    by_kind,
    every_nanosecond_is_under_one_heading,
    rows_are_intervals,
    servers_obey_utilisation_law_and_littles_law,
    shares_are_between_none_and_all,
)
from tests.backends.sim.laws import SECOND
from tests.backends.virtual import TIMING, Run, attempt, scenario
from tests.outside.streaming import Streaming

QUADRATIC = {
    "name": "quadratic",
    "curvature": [1.0, 0.7, 0.5, 0.3, 0.2, 0.1],
    "noise": 0.05,
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.5},
}


class Alone(Streaming):
    """The same program where each push of a fragment makes a version at once: nobody waits for anybody."""

    collects = False

    def sentence(self, rule: lab.Rule) -> lab.Algorithm:
        said = lab.blocking(self, lab.Gate(), rule)
        return replace(said, program=self.program, vectors=lab.Anchored, parts=self.parts)


TOGETHER, ALONE = "tests.outside.streaming:Streaming", f"{__name__}:Alone"
copies = st.sampled_from([{}, {"latency_s": 0.01, "to_host_bytes_per_s": 50.0, "to_device_bytes_per_s": 20.0}])
links = st.one_of(
    st.fixed_dictionaries(
        {"latency_s": st.sampled_from([0.0, 0.2]), "bandwidth_bytes_per_s": st.sampled_from([None, 9.0])}
    ),
    st.just({"latency_s": 0.1, "bandwidth_bytes_per_s": 20.0, "shared": True, "flow_bytes_per_s": 11.0}),
)
machines = st.fixed_dictionaries(
    {
        "compute": st.fixed_dictionaries(
            {"distribution": st.sampled_from(["constant", "exponential"]), "step_s": st.just(1.0)}
        ),
        "client": st.sampled_from([{}, {"push_s": 0.3, "fetch_s": 0.2}]),
        "staging": copies,
        "link": links,
        "server": st.fixed_dictionaries(
            {
                "push_s": st.sampled_from([0.0, 0.4]),
                "fetch_s": st.sampled_from([0.0, 0.1]),
                "push_bytes_per_s": st.sampled_from([None, 30.0]),
            }
        ),
        "host": st.sampled_from([{}, {"workers": 2, "cores": 2}]),
    }
)


def stated(
    hardware: dict[str, Any], name: str = ALONE, workers: int = 2, task: dict[str, Any] = QUADRATIC, **more: Any
) -> Any:
    rule = ["mean"] if name == TOGETHER else ["add"]
    algorithm = {"name": name, "n_sync": 3, "rule": rule, **more.pop("algorithm", {})}
    budget = more.pop("budget", {"minibatches": 12 * workers})
    return scenario(task, algorithm, workers, budget, hardware, **more)


def check(run: Run) -> None:
    """The laws that hold with parts too, and what each part must obey."""
    sim, rows = run.simulation, by_kind(run.effects)
    rows_are_intervals(sim, rows)
    every_nanosecond_is_under_one_heading(sim, rows["train"])
    shares_are_between_none_and_all(run)
    servers_obey_utilisation_law_and_littles_law(sim, rows)
    applies = run.rows("apply")
    for part, at in enumerate(sim.server.parts):
        versions = sorted(applies[(applies["shard"] == part) & (applies["version"] > 0)]["version"].unique())
        assert versions == list(range(1, at.version + 1)), "each part has versions of its own"
    assert not applies.duplicated(["client", "incarnation", "round", "shard"]).any(), "a push ends once"
    assert applies["steps"].sum() == sim.server.minibatches
    pushes = run.rows("push")
    assert set(pushes["shard"]) <= set(range(len(sim.server.parts)))


@given(hardware=machines, workers=st.integers(1, 3), delay=st.integers(0, 2), seed=st.integers(0, 9))
@settings(max_examples=25)
def test_fragments_that_wait_for_all_have_the_parameters_of_a_run_without_a_clock(
    hardware: dict[str, Any], workers: int, delay: int, seed: int
) -> None:
    """To the bit, whatever the machine: rounds of a fragment are summed in worker order."""
    said = stated(hardware, TOGETHER, workers, algorithm={"delay": delay}, seed=seed)
    found = attempt(said)
    assert found.outcome.status == "done"
    check(found)
    task = build_task(said)
    other = Inline(task, build_algorithm(said), build_budget(said), workers)
    other.run()
    assert found.outcome.params is not None
    assert found.outcome.params.tolist() == other.parameters.tolist()
    assert found.simulation.server.minibatches == other.server.minibatches == 12 * workers


@given(
    hardware=machines,
    workers=st.integers(1, 4),
    fragments=st.integers(1, 4),
    budget=st.sampled_from([{"minibatches": 41}, {"updates": 9}, {"seconds": 19.7}]),
    failures=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_runs_with_fragments_obey_the_laws_of_all_runs(
    hardware: dict[str, Any], workers: int, fragments: int, budget: dict[str, Any], failures: bool, seed: int
) -> None:
    faults = {"mean_time_between_failures_s": 15.0, "mean_time_to_repair_s": 0.5, "detect_s": 0.7}
    more = {"faults": faults} if failures else {}
    said = stated(
        hardware, ALONE, workers, TIMING | {"size_bytes": 24}, budget=budget, seed=seed,
        algorithm={"parts": fragments}, **more,
    )  # fmt: skip
    found = attempt(said)
    check(found)
    assert found.outcome.status == "done"
    if list(budget) == ["minibatches"]:
        assert found.simulation.server.minibatches == 41


def test_a_part_takes_its_share_of_the_time_and_a_lease_none_of_it() -> None:
    """24 bytes in two fragments of 12; all at 12 bytes a second, after 0.25 s of latency, without waiting.

    The first fetch has both fragments at once on the worker's link, so that they take 2 s together. A push is copied
    to the host in 1 s, is 1 s on the link and 1 s at the server. The fetch of the same part begins together with it and
    is served after it; the lease is not behind it.
    """
    hardware = {
        "compute": {"step_s": 1.0},
        "link": {"latency_s": 0.25, "bandwidth_bytes_per_s": 12.0},
        "staging": {"to_host_bytes_per_s": 12.0},
        "server": {"push_bytes_per_s": 12.0},
    }
    run = attempt(stated(hardware, ALONE, 1, TIMING | {"size_bytes": 24}, algorithm={"delay": 1}))
    check(run)
    fetches = run.rows("fetch")
    first = fetches[fetches["start_s"] == 0]
    assert sorted(first["shard"]) == [0, 1]
    assert set(first["end_s"]) == {2.5 * SECOND}
    pushes = run.rows("push")
    push = pushes.iloc[0]
    assert (push["bytes"], push["end_s"] - push["start_s"]) == (12, 3.5 * SECOND)
    later = fetches[fetches["start_s"] == push["start_s"]]
    lease, part = later[later["bytes"] == 0].iloc[0], later[later["bytes"] > 0].iloc[0]
    assert (lease["shard"], lease["steps"], lease["end_s"] - lease["start_s"]) == (-1, 3, 0.5 * SECOND)
    assert (part["shard"], part["bytes"], part["end_s"] - part["start_s"]) == (
        push["shard"],
        12,
        (3.25 + 1.25) * SECOND,
    )


def test_fragments_need_one_server() -> None:
    with pytest.raises(ValidationError, match=r"hardware.server.count: must be 1 with"):
        stated({"compute": {"step_s": 1.0}, "server": {"count": 2}})


@pytest.mark.parametrize("servers", [2, 3])
@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "asgd", "n_sync": 2},
        {"name": "asgd", "n_fetch": 3, "n_push": 2},
        {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "sgd", "lr": 0.05}]},
    ],
)
def test_independent_servers_have_the_parameters_of_parts_without_a_clock(
    servers: int, algorithm: dict[str, Any]
) -> None:
    """Of one worker, to the bit, at budgets that cut its last round short; here servers, there parts of one server."""
    task = QUADRATIC | {"optimizer": {"name": "SGD", "lr": 0.1}}
    hardware = {
        "compute": {"step_s": 1.0},
        "link": {"latency_s": 0.1},
        "server": {"count": servers, "independent": True, "push_s": 0.2},
    }
    algorithm = {"rule": ["scale", {"name": "momentum", "beta": 0.5}], **algorithm}
    said = scenario(task, algorithm, 1, {"minibatches": 41}, hardware)
    found = attempt(said)
    without = Inline(build_task(said), replace(build_algorithm(said), parts=servers), build_budget(said), 1)
    without.run()
    assert found.outcome.params is not None
    assert found.outcome.params.tolist() == without.parameters.tolist()
