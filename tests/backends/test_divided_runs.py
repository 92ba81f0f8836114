"""Real runs of a vector in several parts: independent servers (DistBelief's shards), and fragments in turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm, build_budget
from asgd_lab.backends.event_log import Kind
from asgd_lab.backends.outcome import Progress
from asgd_lab.backends.replay import repeat
from asgd_lab.backends.run import execute
from asgd_lab.backends.verification import real_run
from asgd_lab.errors import ScenarioError
from asgd_lab.protocol.messages import Ack, Join, Message, PushRequest
from asgd_lab.protocol.parts import spans
from asgd_lab.protocol.server import Server
from asgd_lab.record import tables
from asgd_lab.record.saved_model import final_params
from asgd_lab.scenario import Scenario
from tests.backends.chaos import Chaos, members
from tests.backends.scenarios import DIGITS, QUADRATIC, run, scenario
from tests.backends.test_process import nothing_is_left
from tests.backends.ticking import TASK, ticked
from tests.whole import sample

__all__ = ["nothing_is_left"]  # a fixture that pytest finds here

PARTS = 3
APART = {"hardware": {"server": {"count": PARTS, "independent": True}, "compute": {"step_s": 0.001}}}
MOMENTUM = {"rule": ["scale", {"name": "momentum", "beta": 0.5}]}
RHYTHMS: dict[str, dict[str, Any]] = {
    "coupled": {"name": "asgd", "n_sync": 2, **MOMENTUM},
    "uncoupled": {"name": "asgd", "n_fetch": 3, "n_push": 2, **MOMENTUM},
    "overlapped": {"name": "downpour", "n_fetch": 4, "n_push": 2, "depth": 3},
    "gradients": {"name": "asgd", "n_sync": 2, "push": "gradient", "rule": [{"name": "adagrad", "lr": 0.05}]},
    "encoded": {"name": "asgd", "n_sync": 2, "codec": {"name": "tests.outside.top_k:TopK", "share": 0.3}},
}
PLAIN = {**QUADRATIC, "optimizer": {"name": "SGD", "lr": 0.1}}  # gradients are not pushed beside momentum
STREAMING = {"name": "tests.outside.streaming:Streaming", "n_sync": 4, "rule": ["mean"]}


def versions_grow_by_one(out: Path, parts: int) -> None:
    effects = tables.read(out, "effects")
    applied = effects[(effects["kind"] == "apply") & (effects["version"] > 0)]
    for part in range(parts):
        made = sorted(applied[applied["shard"] == part]["version"].unique())
        assert made == list(range(1, len(made) + 1)), part
        assert made
    ends = effects[effects["kind"] == "apply"]
    assert not ends.duplicated(["client", "incarnation", "round", "shard"]).any(), "a push ends once in each part"


def repeats(stated: Scenario, out: Path) -> int:
    """The pushes of the run, which repeats to the bit, and whose files agree with that."""
    verdict = repeat(stated, out)
    assert verdict.difference is None
    assert verdict.final
    real_run(out, stated, verdict.made, verdict.versions, verdict.params, verdict.final, verdict.task)
    return verdict.pushes


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_one_worker_of_independent_servers_gives_the_same_bits_on_every_backend(tmp_path: Path, rhythm: str) -> None:
    parts = {"algorithm": RHYTHMS[rhythm], "task": PLAIN, **APART}
    hashes = {
        name: run(tmp_path / name, backend=name, **parts)["params_sha256"] for name in ("inline", "sim", "process")
    }
    assert len(set(hashes.values())) == 1, hashes


NAMES = ["worker", "round", "kind", "version", "staleness", "steps", "bytes", "shard", "client", "incarnation"]


@pytest.mark.parametrize("rhythm", ["coupled", "uncoupled", "encoded"])
def test_the_rows_of_a_divided_run_say_the_same_on_every_backend(tmp_path: Path, rhythm: str) -> None:
    """Of one worker: a row for each part of an exchange, which counts a minibatch in the part that is the last."""
    hardware = {"server": {**APART["hardware"]["server"], "fetch_s": 0.001}, "compute": {"step_s": 0.001}}
    found, stale = {}, []
    for backend in ("sim", "process", "inline"):
        summary = run(tmp_path / backend, backend=backend, algorithm=RHYTHMS[rhythm], task=PLAIN, hardware=hardware)
        effects = tables.read(tmp_path / backend, "effects")
        kinds = ["fetch", "train", "push", "apply"] + (["grant"] if backend != "inline" else [])
        effects = effects[effects["kind"].isin(kinds)]
        pushes, applied = effects[effects["kind"] == "push"], effects[effects["kind"] == "apply"]
        assert len(pushes) == len(applied) == summary["pushes"] == PARTS * summary["updates"]
        assert applied["steps"].sum() == summary["minibatches"]
        assert (applied.groupby("round")["steps"].agg(lambda steps: (steps > 0).sum()) == 1).all()
        stale.append(summary["staleness_per_shard"])
        before = effects[effects["round"] <= summary["updates"]]  # real workers fetch once more, in vain
        found[backend] = sorted(before[NAMES].itertuples(index=False, name=None))
    assert found["process"] == found["sim"]
    assert found["inline"] == [row for row in found["sim"] if row[2] != "grant"]
    assert stale == [stale[0]] * 3
    assert len(stale[0]) == PARTS


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_independent_servers_count_each_minibatch_once_and_repeat_to_the_bit(tmp_path: Path, rhythm: str) -> None:
    stated = scenario(
        algorithm=RHYTHMS[rhythm], workers=3, task=PLAIN, budget={"minibatches": 101}, **APART,
        backend={"name": "process", "digest_every_updates": 10},
    )  # fmt: skip
    summary = execute(stated, tmp_path / "run")
    assert (summary["status"], summary["minibatches"]) == ("done", 101)
    assert tables.read(tmp_path / "run", "minibatches")["step"].count() == 101
    versions_grow_by_one(tmp_path / "run", PARTS)
    assert repeats(stated, tmp_path / "run") == PARTS * summary["updates"]


def test_parts_apply_the_same_pushes_in_orders_of_their_own(tmp_path: Path) -> None:
    """Workers send to different parts first, so that where two push at once, each is before the other somewhere."""
    run(tmp_path / "run", backend="process", workers=3, task=PLAIN, algorithm={"name": "asgd", "n_sync": 1},
        budget={"minibatches": 1500}, **APART)  # fmt: skip
    applied = tables.read(tmp_path / "run", "effects").query("kind == 'apply' and version > 0")
    orders = [
        list(zip(rows["client"], rows["round"], strict=True))
        for _, rows in applied.sort_values("version").groupby("shard")
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1]


@pytest.mark.parametrize("fragments", [2, 3])
def test_fragments_at_different_times_keep_the_budget_and_repeat_to_the_bit(tmp_path: Path, fragments: int) -> None:
    stated = scenario(
        algorithm={**STREAMING, "parts": fragments}, workers=3, task=PLAIN, budget={"minibatches": 121},
        backend={"name": "process", "digest_every_updates": 3},
    )  # fmt: skip
    summary = execute(stated, tmp_path / "run")
    assert (summary["status"], summary["minibatches"]) == ("done", 121)
    versions_grow_by_one(tmp_path / "run", fragments)
    repeats(stated, tmp_path / "run")


LOGNORMAL = {"distribution": "lognormal", "cv": 0.5, "step_s": 0.001}
STOPPED = {"name": "tests.backends.stopping:Fragments", "n_sync": 8, "parts": 3, "patience": 3}


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
def test_leases_are_stopped_between_pushes_of_single_parts(tmp_path: Path, backend: str) -> None:
    """A part is void of what it was not pushed; the minibatches that not all parts have are taken again."""
    slow = {"schedule": [{"name": "slow", "worker": 1, "at_s": 0.0, "until_s": 60.0, "factor": 5.0}]}
    stated = scenario(
        algorithm=STOPPED, workers=3, task=DIGITS, budget={"minibatches": 300}, backend=backend,
        hardware={"compute": LOGNORMAL, "link": {"up_bytes_per_s": 1e6}},  # a lease's fetch overtakes pushes
        **({"faults": slow} if backend != "inline" else {}),
    )  # fmt: skip
    summary = execute(stated, tmp_path / "run")
    assert (summary["status"], summary["minibatches"]) == ("done", 300)
    versions_grow_by_one(tmp_path / "run", 3)
    took = tables.read(tmp_path / "run", "minibatches")["worker"].value_counts()
    if backend == "inline":
        return  # workers take turns: hardly a stop finds work that is not pushed
    assert took.sum() == 300 + summary["wasted_minibatches"] > 300
    if backend == "process":
        repeats(stated, tmp_path / "run")
        return
    applied = tables.read(tmp_path / "run", "effects").query("kind == 'apply'").groupby("client")["steps"].sum()
    wasted = 1 - applied / took
    worker = wasted.idxmax()
    time_s = summary["time"]["per_worker"][worker]
    share = time_s["wasted"] / (time_s["wasted"] + time_s["compute"])
    assert share == pytest.approx(wasted[worker], rel=0.4), "the time of these minibatches, and no other"


ENDS = [
    (limit, divided, backend)
    for limit in ("updates", "minibatches")
    for divided in ("servers", "fragments")
    for backend in ("inline", "sim", "process")
]


@pytest.mark.parametrize(("limit", "divided", "backend"), [*ENDS[:3], *sample(ENDS[3:], 3)])
def test_a_divided_run_ends_when_its_last_version_is_made(
    tmp_path: Path, limit: str, divided: str, backend: str
) -> None:
    """Of any part: the other parts of the push that uses up the updates belong to the run."""
    parts = {"algorithm": RHYTHMS["overlapped"], **APART} if divided == "servers" else {"algorithm": STREAMING}
    summary = run(tmp_path / "run", backend=backend, workers=3, task=PLAIN, budget={limit: 25}, **parts)
    if backend == "process":  # the last version may be made by a leave: of the worker that a held push waited for
        log = event_log.read(tmp_path / "run" / event_log.FILE)
        ends = [row.ended_ns for row in log if row.kind in (Kind.PUSH, Kind.ACK) and row.version > 0]
        assert round(summary["makespan_s"] * 1e9) == max(ends)
    else:
        applied = tables.read(tmp_path / "run", "effects").query("kind == 'apply' and version > 0")
        assert summary["makespan_s"] == applied["end_s"].max()
    assert summary[limit] == 25
    last = tables.read(tmp_path / "run", "evals")["time_s"].max()
    assert last == summary["makespan_s"], "the final parameters have all of it"


GATES: dict[str, dict[str, Any]] = {
    "stops": {"name": "tests.backends.for_each_part:Stops", "n_fetch": 8, "n_push": 3, "patience": 1},
    "stops ahead": {
        "name": "tests.backends.for_each_part:StopsAhead", "n_fetch": 8, "n_push": 3, "depth": 2, "patience": 3,
    },
    "keeps": {"name": "tests.backends.for_each_part:Keeps", "n_sync": 2, "k": 3, "rule": ["add"]},
    "drops": {"name": "tests.backends.for_each_part:Drops", "n_sync": 2, "limit": 3},
}  # fmt: skip


@pytest.mark.parametrize("backend", ["inline", "sim", "process"])
@pytest.mark.parametrize("gate", GATES)
def test_a_users_gate_is_asked_for_each_part(tmp_path: Path, gate: str, backend: str) -> None:
    faults = {"faults": {"schedule": [{"name": "slow", "worker": 1, "at_s": 0.0, "until_s": 60.0, "factor": 5.0}]}}
    stated = scenario(
        algorithm=GATES[gate], workers=3, task=DIGITS, budget={"minibatches": 600}, backend=backend, **APART,
        **(faults if backend != "inline" else {}),
    )  # fmt: skip
    summary = execute(stated, tmp_path / "run")
    assert (summary["status"], summary["minibatches"]) == ("done", 600)
    versions_grow_by_one(tmp_path / "run", PARTS)
    if backend == "process":
        assert gate in ("keeps", "drops") or summary["wasted_minibatches"] > 0
        repeats(stated, tmp_path / "run")


# ---------------------------------------------------------------------- deaths


def killing(*kinds: str) -> Callable[[Progress], None]:
    """A watch that kills these processes (kill -9), one after the other, with some versions in between."""
    left, at = list(kinds), [5]

    def watch(progress: Progress) -> None:
        if left and progress.version >= at[0]:
            for process in members(left[0]):
                process.kill()
                left.pop(0)
                at[0] = progress.version + 5
                break

    return watch


DEATHS = {"on_death": "restart"}


@pytest.mark.parametrize("algorithm", [RHYTHMS["coupled"], RHYTHMS["overlapped"], STREAMING], ids=lambda a: a["name"])
def test_a_worker_and_a_server_that_are_killed_cost_no_minibatch(tmp_path: Path, algorithm: dict[str, Any]) -> None:
    parts = APART if algorithm is not STREAMING else {}
    stated = scenario(
        algorithm=algorithm, workers=3, task=DIGITS, budget={"minibatches": 900}, backend="process", faults=DEATHS,
        **parts,
    )  # fmt: skip
    summary = execute(stated, tmp_path / "run", killing("worker-1", "server", "worker-2", "server"))
    assert (summary["status"], summary["minibatches"]) == ("done", 900)
    assert summary["faults"]["workers"] >= 1
    assert summary["faults"]["servers"] >= 1
    versions_grow_by_one(tmp_path / "run", PARTS if parts else 2)
    repeats(stated, tmp_path / "run")


UNDER_FIRE: list[dict[str, Any]] = [{"name": "asgd", "n_sync": 3}, RHYTHMS["overlapped"]]


@pytest.mark.parametrize("algorithm", sample(UNDER_FIRE, 1), ids=lambda a: a["name"])
def test_every_part_has_each_push_that_it_acknowledged_once(tmp_path: Path, algorithm: dict[str, Any]) -> None:
    """Each minibatch adds 1 to one parameter, which lies in one part: so the parameters tell what each part has."""
    stated = Scenario.model_validate(
        {
            "name": "chaos", "seed": 11, "task": TASK, "algorithm": algorithm | {"rule": ["add"]}, "workers": 3,
            "budget": {"seconds": 6.0}, "backend": {"name": "process", "digest_every_updates": 100}, **APART,
            "faults": {"on_death": "restart", "silent_s": 0.7},
        }
    )  # fmt: skip
    for attempt in (1, 2, 4):  # a loaded machine starts processes too slowly for a short run
        out = tmp_path / str(attempt)
        stated = stated.model_copy(update={"budget": stated.budget.model_copy(update={"seconds": 6.0 * attempt})})
        chaos = Chaos(11, 3, 0.3, 6.0 * attempt)
        execute(stated, out, chaos)
        if chaos.done.total() > 8:
            break
    assert chaos.done.total() > 8
    found = final_params(out)
    for span, minibatches in zip(spans(found.size, PARTS), acknowledged(stated, out), strict=True):
        np.testing.assert_array_equal(found[span], ticked(11, minibatches)[span])
    repeats(stated, out)


def acknowledged(stated: Scenario, out: Path) -> list[list[tuple[int, int]]]:
    """Of each part, the minibatches (worker, step) of all pushes that are in a version."""
    algorithm = build_algorithm(stated)
    server = Server(algorithm.gate, algorithm.n_fetch, build_budget(stated), parts=PARTS)
    cursor: dict[int, int] = {}
    carried: dict[tuple[int, int], range] = {}  # by worker and number
    found: list[list[tuple[int, int]]] = [[] for _ in range(PARTS)]
    for row in event_log.read(out / event_log.FILE):
        message = row.message
        if not isinstance(message, Message):
            continue
        if isinstance(message, PushRequest) and (message.worker, message.number) not in carried:
            begin = cursor[message.worker]
            carried[message.worker, message.number] = range(begin, begin + message.steps)
            cursor[message.worker] = begin + message.steps
        for answer in server.hear(message, row.begun_ns):
            if isinstance(answer, Ack) and answer.version > 0:
                found[answer.part] += [(answer.worker, step) for step in carried[answer.worker, answer.number]]
        if isinstance(message, Join):
            cursor[message.worker] = server.taken(message.worker)
    return found


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize("divided", [{"algorithm": STREAMING}, APART], ids=["fragments", "servers"])
@pytest.mark.parametrize(
    ("key", "backend"),
    [
        ("backend.checkpoint", {"checkpoint": {"every_updates": 5}}),
        ("backend.distances", {"distances": True}),
        ("backend.device", {"device": "emulated"}),
        ("backend.device", {"device": "cuda"}),
    ],
)
def test_keys_that_need_an_undivided_vector_are_refused(
    key: str, backend: dict[str, Any], divided: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        scenario(**{"hardware": {"compute": {"step_s": 0.001}}, **divided}, backend={"name": "process", **backend})


def test_more_parts_than_parameters_are_refused(tmp_path: Path) -> None:
    many = {"server": {"count": 5, "independent": True}}
    with pytest.raises(ScenarioError, match="must be at most the 4 parameters"):
        execute(scenario(backend="process", hardware=many), tmp_path / "a")
    with pytest.raises(ScenarioError, match="has 5 parts, and the task has 4 parameters"):
        execute(scenario(backend="process", algorithm={**STREAMING, "parts": 5}), tmp_path / "b")
