"""Simulated independent servers: parts of one server of the protocol, each with a queue and routes of its own."""

from __future__ import annotations

from typing import Any

import pytest

from asgd_lab.backends.build import build_algorithm, build_budget, build_task
from asgd_lab.backends.inline import Inline
from asgd_lab.backends.inline_observers import Observer
from asgd_lab.errors import ProtocolError
from asgd_lab.protocol.client import Step
from asgd_lab.protocol.effects import Train
from asgd_lab.protocol.messages import Ack, Answer
from asgd_lab.scenario import Scenario
from tests.backends.sim.laws import SECOND
from tests.backends.virtual import TIMING, Run, attempt, scenario, simulate

QUADRATIC = {
    "name": "quadratic",
    "curvature": [1.0, 0.7, 0.5, 0.3, 0.2],
    "noise": 0.05,
    "optimizer": {"name": "SGD", "lr": 0.1},
}
LOGNORMAL = {"distribution": "lognormal", "cv": 0.8, "step_s": 1.0}
PARTS = 3
FAR = {  # the last server is far from the first worker
    "groups": [{"name": "far", "workers": 1}, {"name": "near"}],
    "links": [{"group": "far", "servers": [PARTS - 1], "latency_s": 3.0}],
}
SPARSE = {"name": "tests.outside.top_k:TopK", "share": 0.3}
RHYTHMS: dict[str, dict[str, Any]] = {
    "coupled": {"name": "asgd", "n_sync": 2, "rule": ["scale", {"name": "momentum", "beta": 0.5}]},
    "uncoupled": {"name": "asgd", "n_fetch": 3, "n_push": 2},
    "overlapped": {"name": "downpour", "n_fetch": 4, "n_push": 2, "depth": 2},
    "gradients": {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "adagrad", "lr": 0.05}]},
    "encoded": {"name": "asgd", "n_sync": 2, "codec": SPARSE},
    "keeps": {"name": "tests.backends.for_each_part:Keeps", "n_sync": 2, "k": 2, "rule": ["add"]},
    "drops": {"name": "tests.backends.for_each_part:Drops", "n_sync": 2, "limit": 3},
    "leases": {"name": "tests.backends.for_each_part:Leases", "n_sync": 2},
    "stops": {"name": "tests.backends.for_each_part:Stops", "n_fetch": 8, "n_push": 3, "patience": 1},
}  # fmt: skip


def stated(algorithm: dict[str, Any], workers: int = 3, servers: int = PARTS, **more: Any) -> Scenario:
    hardware = {"compute": LOGNORMAL, **more.pop("hardware", {})}
    hardware["server"] = {"count": servers, "independent": True, **hardware.get("server", {})}
    budget = more.pop("budget", {"minibatches": 101})
    return scenario(more.pop("task", QUADRATIC), algorithm, workers, budget, hardware, **more)


class Turns(Observer):
    """Lets a worker take turns until its minibatches are done, or it waits."""

    def __init__(self, said: Scenario) -> None:
        self.answers: list[tuple[int, ...]] = []
        self._training: set[int] = set()
        self.lab = Inline(build_task(said), build_algorithm(said), build_budget(said), said.workers, observer=self)

    def step(self, worker: int, step: Step) -> None:
        if isinstance(step, Train):
            self._training.add(worker)

    def answered(self, worker: int, answer: Answer) -> None:
        if isinstance(answer, Ack):
            self.answers.append((worker, answer.version, answer.staleness, answer.steps, answer.part))

    def start(self) -> None:
        """Workers that do not wait go on until their next minibatches are done."""
        while able := self.lab.ready - self._training:
            worker = min(able)
            while worker in self.lab.ready - self._training:
                self.lab.turn(worker)

    def after_train(self, worker: int) -> None:
        """The worker goes on, and so do workers that its push has released."""
        self._training.discard(worker)
        self.start()


@pytest.mark.parametrize("rhythm", ["coupled", "uncoupled", "overlapped", "gradients", "encoded", "drops"])
@pytest.mark.parametrize("workers", [1, 3])
def test_where_only_minibatches_take_time_a_run_is_one_without_a_clock(rhythm: str, workers: int) -> None:
    """To the bit, with the versions and the answers of each part: workers take turns as their minibatches end."""
    said = stated(RHYTHMS[rhythm], workers)
    found = attempt(said)
    turns = Turns(said)
    turns.start()
    for worker in found.rows("train").sort_values("end_s")["worker"].tolist():
        turns.after_train(worker)
    server, other = found.simulation.server, turns.lab.server
    assert [at.version for at in server.parts] == [at.version for at in other.parts]
    assert server.minibatches == other.minibatches == 101
    assert found.outcome.params is not None
    assert found.outcome.params.tolist() == turns.lab.parameters.tolist()
    applied = found.rows("apply")[["client", "version", "staleness", "steps", "shard"]]
    assert list(applied.itertuples(index=False, name=None)) == turns.answers


def pushes_end_once_in_each_part(run: Run) -> None:
    applies = run.rows("apply")
    assert not applies.duplicated(["client", "incarnation", "round", "shard"]).any()
    for part, at in enumerate(run.simulation.server.parts):
        made = sorted(applies[(applies["shard"] == part) & (applies["version"] > 0)]["version"].unique())
        assert made == list(range(1, at.version + 1))
    assert applies[applies["version"] > 0]["steps"].sum() == run.simulation.server.minibatches


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_users_gates_and_codecs_work_beside_independent_servers(rhythm: str) -> None:
    hardware = {"link": {"latency_s": 0.1, "bandwidth_bytes_per_s": 50.0}, "server": {"push_s": 0.05}, **FAR}
    found = attempt(stated(RHYTHMS[rhythm], hardware=hardware))
    assert found.outcome.status == "done", found.outcome.failure
    assert found.simulation.server.minibatches == 101
    pushes_end_once_in_each_part(found)


def test_a_codec_shortens_the_way_of_each_part() -> None:
    """A part of 1000 bytes a second away: 1 s, or half of it where each element is cast to two bytes."""
    hardware = {
        "compute": {"step_s": 1.0},
        "link": {"up_bytes_per_s": 1000.0},
        "server": {"bandwidth_bytes_per_s": 1e9},
    }
    task = TIMING | {"size_bytes": 2000}
    for codec, way_s, size_bytes in ((None, 2.0, 1000), ("cast", 1.0, 500)):
        algorithm = {"name": "asgd", "n_sync": 1, "codec": codec}
        found = attempt(stated(algorithm, 1, 2, task=task, hardware=hardware, budget={"updates": 3}))
        pushes = found.rows("push")
        assert set(pushes["bytes"]) == {size_bytes}
        lasted = (pushes["end_s"] - pushes["start_s"]) / SECOND
        assert lasted.tolist() == pytest.approx([way_s] * len(pushes)), "both parts share the worker's link"


def test_on_a_host_of_one_core_the_software_handles_all_parts_together() -> None:
    """Software of 2 s before each push and 1 s after each fetch, however many parts there are; one server waits less.

    The far server's part of the first fetch lands at 6 s, so the software is done with all at 7 s.
    """
    hardware = {"compute": {"step_s": 1.0}, "client": {"push_s": 2.0, "fetch_s": 1.0}, "host": {"cores": 1}, **FAR}
    found = simulate(stated({"name": "asgd", "n_sync": 1}, 1, task=TIMING, hardware=hardware, budget={"updates": 2}))
    fetches, pushes = (found.rows(kind).query("round == 1") for kind in ("fetch", "push"))
    assert (fetches["end_s"] / SECOND).tolist() == [7.0] * PARTS
    assert sorted(pushes["end_s"] / SECOND) == [10.0] * (PARTS - 1) + [16.0]


CRASHES = {
    "mean_time_between_failures_s": 12.0, "mean_time_to_repair_s": 1.0, "detect_s": 0.5,
    "schedule": [{"name": "server_down", "at_s": 5.0, "for_s": 1.5}, {"name": "slow", "worker": 1, "at_s": 2.0,
                 "until_s": 9.0, "factor": 3.0}],
}  # fmt: skip


@pytest.mark.parametrize("rhythm", ["coupled", "uncoupled", "overlapped"])
@pytest.mark.parametrize("seed", range(3))
def test_workers_that_crash_between_the_parts_of_a_push_cost_no_minibatch(rhythm: str, seed: int) -> None:
    """A push may be in a version of one part and lost on its way to another; then its minibatches are taken again."""
    hardware = {"link": {"latency_s": 0.1, "bandwidth_bytes_per_s": 50.0}, "server": {"push_s": 0.05}, **FAR}
    said = stated(RHYTHMS[rhythm], hardware=hardware, faults=CRASHES, seed=seed)
    found = simulate(said)
    assert found.simulation.server.minibatches == 101
    assert found.outcome.facts["faults"]["crashes"] > 0
    pushes_end_once_in_each_part(found)


def test_a_lease_alone_needs_no_parts() -> None:
    """In the order of a run without a clock: two requests in place of one, and the parameters of asgd."""
    said = scenario(QUADRATIC, RHYTHMS["leases"], 3, {"minibatches": 101}, {"compute": LOGNORMAL})
    other = said.model_copy(update={"algorithm": stated({"name": "asgd", "n_sync": 2}).algorithm})
    found, plain = attempt(said), attempt(other)
    assert found.simulation.server.minibatches == 101
    assert found.outcome.params is not None
    assert plain.outcome.params is not None
    assert found.outcome.params.tolist() == plain.outcome.params.tolist()


def test_a_part_that_is_not_there_is_told() -> None:
    algorithm = {"name": "tests.backends.for_each_part:NamesAPart", "n_sync": 2}
    lab = Turns(scenario(QUADRATIC, algorithm, 1, {"minibatches": 10}, {"compute": LOGNORMAL})).lab
    with pytest.raises(ProtocolError, match="worker 0 names part 0, and the vector is undivided"):
        lab.run()
