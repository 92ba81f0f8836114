from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asgd_lab.record import tables, trace
from asgd_lab.record.tables import EFFECTS, KINDS, Rows

FETCH, TRAIN, PUSH, APPLY = (KINDS.index(kind) for kind in ("fetch", "train", "push", "apply"))
ROWS = [
    (0, 0, FETCH, 0, 1_500, 250, 4, -1, -1, 64),
    (1, 0, TRAIN, 1_500, 2_000_001_501, 0, -1, -1, 10, 0),
    (-1, 0, APPLY, 2_000_001_501, 2_000_001_501, 7, 5, 3, 10, 64),
    (0, 1, PUSH, 3_600 * 10**9, 3_600 * 10**9 + 1, 0, 5, 3, 10, 64),
]


def written(directory: Path, rows: list[tuple[int, ...]], **options: int) -> dict[str, Any]:
    effects = Rows(EFFECTS.file(directory), EFFECTS)
    effects.extend(rows)
    effects.close()
    trace.write(directory, **options)
    content: dict[str, Any] = json.loads((directory / "trace.json").read_text(encoding="utf-8"))
    return content


def test_every_effect_is_a_complete_event_in_microseconds(tmp_path: Path) -> None:
    events = [event for event in written(tmp_path, ROWS)["traceEvents"] if event["ph"] == "X"]
    assert [(event["name"], event["ts"], event["dur"]) for event in events] == [
        ("fetch", 0, 1.5),
        ("train", 1.5, 2_000_000.001),
        ("apply", 2_000_001.501, 0),
        ("push", 3_600e6, 0.001),
    ]
    assert events[2]["args"] == {"round": 0, "version": 5, "staleness": 3, "steps": 10, "bytes": 64, "wait_us": 0.007}
    assert all(event["cat"] == "effect" for event in events)


def test_the_server_and_each_worker_have_a_named_track(tmp_path: Path) -> None:
    content = written(tmp_path, ROWS)
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in content["traceEvents"]
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    assert sorted(names.values()) == ["server", "worker 0", "worker 1"]
    tracks = [names[event["pid"], event["tid"]] for event in content["traceEvents"] if event["ph"] == "X"]
    assert tracks == ["worker 0", "worker 1", "server", "worker 0"]
    processes = {event["pid"]: event["args"]["name"] for event in content["traceEvents"] if "process" in event["name"]}
    assert sorted(processes.values()) == ["server", "workers"]
    assert 0 not in processes
    assert not set(processes) & {tid for _, tid in names}
    order = [e["tid"] for e in content["traceEvents"] if e["name"] == "thread_sort_index"]
    assert order == sorted(order)


def test_what_a_viewer_could_not_show_is_counted_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "GROUP_ROWS", 3)
    content = written(tmp_path, ROWS * 4, max_events=7)
    assert sum(event["ph"] == "X" for event in content["traceEvents"]) == 7
    assert content["otherData"] == {"effects_left_out": 9}


def test_a_run_without_effects_has_a_valid_trace_and_equal_runs_equal_bytes(tmp_path: Path) -> None:
    content = written(tmp_path, [])
    assert {event["ph"] for event in content["traceEvents"]} == {"M"}
    contents = []
    for _ in range(2):
        written(tmp_path, ROWS)
        contents.append((tmp_path / "trace.json").read_bytes())
    assert contents[0] == contents[1]
