"""What the hot path does in one piece is what the general way does in many: the same nanoseconds, the same rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.run import execute
from asgd_lab.backends.sim import observer, simulation
from asgd_lab.backends.sim.exchange import Exchange
from asgd_lab.backends.sim.fetch import Fetch
from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.sharing import Sharing
from asgd_lab.record import tables
from tests.backends.virtual import TIMING, Run, scenario, simulate

COPIES = st.sampled_from([0.0, 0.2])
machines = st.fixed_dictionaries(
    {
        "compute": st.fixed_dictionaries({"distribution": st.sampled_from(["constant", "exponential", "gamma"])}),
        "client": st.fixed_dictionaries(
            {"push_s": st.sampled_from([0.0, 0.1]), "fetch_s": st.sampled_from([0.0, 0.2])}
        ),
        "staging": st.fixed_dictionaries({"to_host_bytes_per_s": st.sampled_from([None, 8000.0])}),
        "link": st.fixed_dictionaries(
            {
                "latency_s": st.sampled_from([0.0, 0.05]),
                "bandwidth_bytes_per_s": st.sampled_from([1000.0, 9000.0]),
                "shared": st.booleans(),
            }
        ),
        "server": st.fixed_dictionaries(
            {"push_s": st.sampled_from([0.0, 0.3]), "fetch_s": st.sampled_from([0.0, 0.1])}
        ),
    }
)
algorithms = st.sampled_from(
    [
        {"name": "asgd", "n_sync": 2},
        {"name": "sync_sgd", "n_sync": 1},
        {"name": "ssp", "n_sync": 1, "bound": 1},
        {"name": "downpour", "n_sync": 1},
    ]
)


def run(hardware: dict[str, Any], algorithm: dict[str, Any], seed: int) -> Run:
    task = TIMING | {"size_bytes": 1000}
    return simulate(scenario(task, algorithm, 4, {"updates": 30}, hardware, seed=seed))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hardware=machines, algorithm=algorithms, seed=st.integers(0, 9))
def test_an_exchange_is_charged_in_one_go_as_by_its_stages(
    hardware: dict[str, Any], algorithm: dict[str, Any], seed: int
) -> None:
    short = run(hardware, algorithm, seed)
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Push, Fetch):
            patch.setattr(kind, "charge", Exchange.charge)
        long = run(hardware, algorithm, seed)
    mine, theirs = ([each.spent_ns for each in found.simulation.accounts] for found in (short, long))
    assert mine == theirs


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hardware=machines, seed=st.integers(0, 9))
def test_a_link_with_one_class_is_shared_as_one_with_many_would_be(hardware: dict[str, Any], seed: int) -> None:
    """A class that nobody joins makes the link take the general way."""
    add = Sharing.add

    def crowded(self: Sharing, *arguments: Any) -> Any:
        found = add(self, *arguments)
        add(self, found.capacities, 1e-3)
        return found

    hardware = hardware | {"link": hardware["link"] | {"shared": True}}
    short = run(hardware, {"name": "asgd", "n_sync": 1}, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sharing, "add", crowded)
        long = run(hardware, {"name": "asgd", "n_sync": 1}, seed)
    assert (short.effects == long.effects).all().all()


@pytest.mark.parametrize("algorithm", [{"name": "asgd", "n_sync": 1}, {"name": "sync_sgd", "n_sync": 1}], ids=str)
def test_a_watched_run_is_the_run_that_nobody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: dict[str, Any]
) -> None:
    """The progress comes from the short way and from the general one, after every so many pushes."""
    monkeypatch.setattr(observer, "WATCH_S", 0.0)
    monkeypatch.setattr(observer, "WATCH_EVERY", 8)
    monkeypatch.setattr(simulation, "WATCH_EVERY", 8)
    stated = scenario(TIMING | {"size_bytes": 1000}, algorithm, 4, {"minibatches": 400}, {"server": {"push_s": 0.3}})
    looks: list[Progress] = []
    watched, alone = execute(stated, tmp_path / "watched", looks.append), execute(stated, tmp_path / "alone")
    assert watched == alone
    for table in ("effects", "minibatches", "evals"):
        assert tables.read(tmp_path / "watched", table).equals(tables.read(tmp_path / "alone", table))
    assert len(looks) >= 400 // 8
    assert all(one.minibatches < other.minibatches for one, other in itertools.pairwise(looks))
