from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from asgd_lab.record import trace, tracks
from asgd_lab.record.columns import EFFECTS, KINDS
from asgd_lab.record.run import read_summary
from asgd_lab.record.tables import Rows
from tests.backends.scenarios import TIMING, run

FETCH, TRAIN, PUSH, APPLY = (KINDS.index(kind) for kind in ("fetch", "train", "push", "apply"))
ROWS = [
    (0, 0, FETCH, 0, 1_500, 250, 4, -1, -1, 64, -1),
    (1, 0, TRAIN, 1_500, 2_000_001_501, 0, -1, -1, 10, 0, -1),
    (-1, 0, APPLY, 2_000_001_501, 2_000_001_501, 7, 5, 3, 10, 64, 0),
    (0, 0, PUSH, 1_500_000_000, 2_000_001_502, 0, 5, 3, 10, 64, -1),
]
Event = dict[str, Any]


def read(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "trace.json").read_text(encoding="utf-8"))
    return content


def written(directory: Path, rows: list[tuple[int, ...]], **options: int) -> dict[str, Any]:
    effects = Rows(EFFECTS.file(directory), EFFECTS)
    effects.extend((*row, row[0], 1) for row in rows)
    effects.close()
    trace.write(directory, **options)
    return read(directory)


def phase(content: dict[str, Any], *phases: str) -> list[Event]:
    return [event for event in content["traceEvents"] if event["ph"] in phases]


def simulated(directory: Path, **parts: Any) -> dict[str, Any]:
    """The trace of a simulation, timing only."""
    run(directory, task=TIMING, backend="sim", **parts)
    return read(directory)


def nanoseconds(event: Event, key: str) -> int:
    return round(1000 * event[key])


def tracks_of(content: dict[str, Any]) -> dict[tuple[int, int], str]:
    """`process: thread` by the two numbers."""
    processes = {event["pid"]: event["args"]["name"] for event in phase(content, "M") if "process" in event["name"]}
    return {
        (event["pid"], event["tid"]): f"{processes[event['pid']]}: {event['args']['name']}"
        for event in phase(content, "M")
        if event["name"] == "thread_name"
    }


def enclosing(content: dict[str, Any]) -> dict[tuple[str, int], Event]:
    """Read slices and arrows as a viewer does: the slice that each end of an arrow is bound to. Slices must nest."""
    open_slices: dict[tuple[int, int], list[tuple[int, Event]]] = defaultdict(list)
    bound = {}
    for event in sorted(phase(content, "X", "s", "f"), key=lambda event: event["ts"]):
        stack, begin = open_slices[event["pid"], event["tid"]], nanoseconds(event, "ts")
        if event["ph"] != "X":
            assert (event["ph"], event["id"]) not in bound
            bound[event["ph"], event["id"]] = stack[-1][1]
            continue
        while stack and stack[-1][0] <= begin:
            stack.pop()
        end = begin + nanoseconds(event, "dur")
        assert not stack or end <= stack[-1][0], f"{event} ends after {stack[-1][1]}"
        stack.append((end, event))
    return bound


# ---------------------------------------------------------------- single events


def test_every_effect_is_a_complete_event_in_microseconds(tmp_path: Path) -> None:
    events = phase(written(tmp_path, ROWS), "X")
    assert [(event["name"], event["ts"], event["dur"]) for event in events] == [
        ("fetch", 0, 1.5),
        ("train", 1.5, 2_000_000.001),
        ("push", 1_500_000, 500_001.502),
        ("apply", 2_000_001.501, 0),
    ]
    assert events[3]["args"] == {"round": 0, "version": 5, "staleness": 3, "steps": 10, "bytes": 64, "wait_us": 0.007}
    assert events[1]["args"] == {"round": 0, "steps": 10}  # what does not apply is left out
    assert all(event["cat"] == "effect" for event in events)


def test_a_time_keeps_its_nanoseconds(tmp_path: Path) -> None:
    times = [0, 1, 10, 999, 1000, 1001, 86_400 * 10**9 + 7, 10**15 + 120]
    written(tmp_path, [(0, 0, TRAIN, begin, begin, 0, -1, -1, 0, 0, -1) for begin in times])
    text = (tmp_path / "trace.json").read_text(encoding="utf-8")
    shown = [line.split('"ts":')[1].split(",")[0] for line in text.splitlines() if '"X"' in line]
    assert shown == ["0", "0.001", "0.01", "0.999", "1", "1.001", "86400000000.007", "1000000000000.12"]


def test_the_server_and_each_worker_have_a_named_track(tmp_path: Path) -> None:
    content = written(tmp_path, ROWS)
    names = tracks_of(content)
    assert sorted(names.values()) == ["server: server", "workers: worker 0", "workers: worker 1"]
    shown = [names[event["pid"], event["tid"]].split(": ")[1] for event in phase(content, "X")]
    assert shown == ["worker 0", "worker 1", "worker 0", "server"]
    assert all(pid > 0 for pid, _ in names)
    assert not {pid for pid, _ in names} & {tid for _, tid in names}
    order = [event["tid"] for event in phase(content, "M") if event["name"] == "thread_sort_index"]
    assert order == sorted(order)


def test_what_a_viewer_could_not_show_is_counted_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_ROWS_AT_ONCE", 3)
    content = written(tmp_path, ROWS * 4, max_effects=7)
    assert len(phase(content, "X")) == 7
    assert content["otherData"] == {"effects_left_out": 9}


def test_a_run_without_effects_has_a_valid_trace_and_equal_runs_equal_bytes(tmp_path: Path) -> None:
    assert written(tmp_path, [])["traceEvents"] == []
    contents = []
    for _ in range(2):
        written(tmp_path, ROWS)
        contents.append((tmp_path / "trace.json").read_bytes())
    assert contents[0] == contents[1]


# ---------------------------------------------------------------- whole runs

MACHINES = st.fixed_dictionaries(
    {
        "compute": st.sampled_from([{"distribution": "constant"}, {"distribution": "exponential"}]),
        "staging": st.sampled_from([{}, {"latency_s": 1e-6, "to_host_bytes_per_s": 5e6, "to_device_bytes_per_s": 3e6}]),
        "link": st.sampled_from(
            [{}, {"latency_s": 1e-4}, {"bandwidth_bytes_per_s": 2e6, "shared": True, "latency_s": 1e-5}]
        ),
        "server": st.sampled_from([{}, {"push_s": 3e-4, "fetch_s": 1e-4}, {"push_s": 1e-4, "one_sided_fetch": True}]),
        "client": st.sampled_from([{}, {"push_s": 1e-4, "fetch_s": 2e-4}]),
    }
)
ALGORITHMS: list[dict[str, Any]] = [
    {"name": "asgd", "n_sync": 2},
    {"name": "asgd", "n_fetch": 2, "n_push": 3},
    {"name": "downpour", "n_sync": 1, "depth": 1},
    {"name": "downpour", "n_fetch": 3, "n_push": 1, "depth": 3},
    {"name": "sync_sgd", "n_sync": 2},
    {"name": "ssp", "n_sync": 1, "bound": 1},
]


CRASHES = {"mean_time_between_failures_s": 0.01, "mean_time_to_repair_s": 0.002, "detect_s": 0.001}


@given(MACHINES, st.sampled_from(ALGORITHMS), st.integers(1, 5), st.integers(1, 3), st.sampled_from([None, CRASHES]))
@settings(max_examples=60, deadline=None)
def test_slices_nest_on_every_track_and_arrows_end_at_applications(
    hardware: dict[str, Any], algorithm: dict[str, Any], workers: int, servers: int, faults: dict[str, float] | None
) -> None:
    parts = {"hardware": {**hardware, "server": {**hardware["server"], "count": servers}}, "faults": faults}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        content = simulated(path, algorithm=algorithm, workers=workers, budget={"updates": 20}, **parts)
    bound = enclosing(content)
    senders, applies = ({key: event for (end, key), event in bound.items() if end == side} for side in "sf")
    assert senders.keys() == applies.keys()
    for key, sender in senders.items():
        assert sender["name"] == ("up" if "bandwidth_bytes_per_s" in hardware["link"] else sender["name"])
        assert sender["name"] in ("push", "to_host", "up")
        assert applies[key]["name"] == "apply"
        assert sender["args"]["round"] == applies[key]["args"]["round"]
    pushed = [event for event in phase(content, "X") if event["name"] == "push"]
    if faults is None:  # a push that a crash has left without its row has no arrow, and so has its round
        assert len(senders) == len(pushed) > 0


def test_an_arrow_begins_when_its_push_is_sent_and_ends_when_the_server_turns_to_it(tmp_path: Path) -> None:
    hardware = {"link": {"bandwidth_bytes_per_s": 1e6, "shared": True, "latency_s": 1e-5}, "server": {"push_s": 0.001}}
    content = simulated(tmp_path / "run", hardware=hardware, workers=3, budget={"updates": 9})
    bound = enclosing(content)
    at = {(event["ph"], event["id"]): nanoseconds(event, "ts") for event in phase(content, "s", "f")}
    for (side, key), slice in bound.items():
        if side == "s":
            arrived = nanoseconds(slice, "ts") + nanoseconds(slice, "dur")
            apply = bound["f", key]
            assert at["s", key] == arrived - 1  # the last moment inside
            assert at["f", key] - 1 == nanoseconds(apply, "ts")
            assert at["f", key] - 1 - round(1000 * apply["args"].get("wait_us", 0)) == arrived


def test_arrows_of_a_collected_round_come_from_every_worker(tmp_path: Path) -> None:
    algorithm = {"name": "sync_sgd", "n_sync": 1}
    hardware = {"compute": {"distribution": "exponential"}, "link": {"latency_s": 1e-4}}
    content = simulated(tmp_path / "run", algorithm=algorithm, hardware=hardware, workers=4, budget={"updates": 5})
    names = tracks_of(content)
    of = Counter(
        (names[event["pid"], event["tid"]], event["args"]["round"])
        for (side, _), event in enclosing(content).items()
        if side == "s"
    )
    assert of == {(f"workers: worker {worker}", round): 1 for worker in range(4) for round in range(1, 6)}
    for (side, key), sender in enclosing(content).items():
        if side == "s":  # each arrow leads to the application of the very push that it begins at
            apply = enclosing(content)["f", key]
            assert nanoseconds(apply, "ts") == nanoseconds(sender, "ts") + 100_000


def test_exchanges_beside_training_have_tracks_of_their_own(tmp_path: Path) -> None:
    algorithm = {"name": "downpour", "n_sync": 1, "depth": 2}
    hardware = {"link": {"bandwidth_bytes_per_s": 1e6, "shared": True}}
    content = simulated(tmp_path / "run", algorithm=algorithm, hardware=hardware, workers=2, budget={"updates": 20})
    names = tracks_of(content)
    on: dict[str, set[str]] = defaultdict(set)
    for event in phase(content, "X"):
        on[names[event["pid"], event["tid"]]].add(event["name"])
    assert on["workers: worker 0"] == {"train"}
    assert on["workers: worker 1 fetch"] == {"fetch", "down"}
    assert on["workers: worker 1 push"] == {"push", "up"}


def test_transfers_that_share_a_link_lie_side_by_side(tmp_path: Path) -> None:
    hardware = {"link": {"bandwidth_bytes_per_s": 1e6, "shared": True}}
    content = simulated(tmp_path / "run", hardware=hardware, workers=3, budget={"updates": 9})
    names = tracks_of(content)
    lanes = Counter(names[event["pid"], event["tid"]] for event in phase(content, "X") if event["cat"] == "transfer")
    assert {name for name in lanes if "workers:" in name} == {f"transfers to the workers: lane {n}" for n in range(3)}
    inside = [event for event in phase(content, "X") if event["name"] in ("up", "down")]
    assert sum(lanes.values()) == len(inside)


@pytest.mark.parametrize("independent", [False, True])
def test_several_servers_have_a_track_each(tmp_path: Path, independent: bool) -> None:
    hardware = {"server": {"count": 3, "independent": independent, "push_s": 1e-4}}
    content = simulated(tmp_path / "run", hardware=hardware, workers=2, budget={"updates": 6})
    names = tracks_of(content)
    applied = Counter(names[event["pid"], event["tid"]] for event in phase(content, "X") if event["name"] == "apply")
    assert set(applied) == {"server: server 0", "server: server 1", "server: server 2"}


def test_counters_have_the_summarys_means(tmp_path: Path) -> None:
    hardware = {"link": {"bandwidth_bytes_per_s": 1e6, "shared": True}, "server": {"push_s": 0.001}}
    content = simulated(tmp_path / "run", hardware=hardware, workers=4, budget={"updates": 40})
    counters: dict[str, list[Event]] = defaultdict(list)
    for event in phase(content, "C"):
        counters[event["name"]].append(event)
    resources = {resource["name"]: resource for resource in read_summary(tmp_path / "run")["resources"]}
    assert counters.keys() == resources.keys() == {"server", "link up", "link down"}
    for name, events in counters.items():
        times = np.array([event["ts"] for event in events])
        for mean in ("utilisation", "present"):
            values = np.array([event["args"][mean] for event in events])
            assert values[-1] == 0  # the run is over
            area = (values[:-1] * np.diff(times)).sum() / times[-1]
            assert area == pytest.approx(resources[name][mean], abs=1e-4)


def test_a_run_of_processes_has_its_arrows_too(tmp_path: Path) -> None:
    content = written(
        tmp_path,
        [  # as a process run sorts them: by their beginning, two of a collected round
            (0, 1, PUSH, 10, 90, 0, 1, 0, 1, 8, -1),
            (1, 1, PUSH, 20, 95, 0, 1, 0, 1, 8, -1),
            (-1, 1, APPLY, 30, 40, 5, 1, 0, 1, 8, 0),
            (-1, 1, APPLY, 40, 50, 5, 1, 0, 1, 8, 0),
        ],
    )
    names, bound = tracks_of(content), enclosing(content)
    pairs = {
        (names[sender["pid"], sender["tid"]], bound["f", key]["ts"])
        for (side, key), sender in bound.items()
        if side == "s"
    }
    assert pairs == {("workers: worker 0", 0.03), ("workers: worker 1", 0.04)}


# ---------------------------------------------------------------- lanes

INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=40)


@given(INTERVALS)
def test_intervals_on_a_lane_are_apart_and_there_are_no_more_lanes_than_needed(pairs: list[tuple[int, int]]) -> None:
    start = np.array([begin for begin, _ in pairs], np.int64)
    end = start + np.array([length for _, length in pairs], np.int64)
    lanes = tracks.pack(start, end)
    for lane in set(lanes.tolist()):
        mine = sorted(zip(start[lanes == lane].tolist(), end[lanes == lane].tolist(), strict=True))
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(mine))
    at_once = max((int(((start <= at) & (at < end)).sum()) for at in range(40)), default=0)
    assert int(lanes.max(initial=0)) + 1 == max(1, at_once)
