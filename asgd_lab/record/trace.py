"""The effects of a run as Chrome trace events for ui.perfetto.dev: a track for the server and one a worker, times in
microseconds.

Written from the table's columns alone. A browser cannot show what a table can hold: the first MAX_EVENTS effects are
written and the rest are counted in `otherData.effects_left_out`.
"""

from __future__ import annotations

import json
import os
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from asgd_lab.record import tables

if TYPE_CHECKING:
    import pandas as pd

MAX_EVENTS = 500_000
# Track numbers start at 1: to a trace viewer process 0 is the idle task. A thread numbered like its process would be
# taken for its main thread.
SERVER_PID, WORKERS_PID = 1, 2
FIRST_TID = 10
_COLUMNS = ("worker", "round", "kind", "start_s", "end_s", "wait_s", "version", "staleness", "steps", "bytes")
_EVENT = (
    '{"name":"%s","cat":"effect","ph":"X","ts":%.3f,"dur":%.3f,"pid":%d,"tid":%d,'
    '"args":{"round":%d,"version":%d,"staleness":%d,"steps":%d,"bytes":%d,"wait_us":%.3f}}'
)


def write(run_dir: Path | str, max_events: int = MAX_EVENTS) -> Path:
    """Write trace.json beside the run's effects table; -1 in an argument means none."""
    path = Path(run_dir) / "trace.json"
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("w", encoding="utf-8") as file:
        _write_events(file, run_dir, max_events)
    os.replace(unfinished, path)
    return path


def _write_events(file: TextIO, run_dir: Path | str, max_events: int) -> None:
    written, left_out, workers = 0, 0, {-1}
    file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
    for frame in tables.stream(run_dir, "effects", _COLUMNS):
        kept = frame.iloc[: max_events - written]
        left_out += len(frame) - len(kept)
        for event in _events(kept):
            file.write(event)
            file.write(",\n")
        written += len(kept)
        workers.update(kept["worker"].unique().tolist())
    names = [event for worker in sorted(workers) for event in _track_names(worker)]
    file.write(",\n".join(json.dumps(event, separators=(",", ":")) for event in names))
    file.write(f'\n],"otherData":{{"effects_left_out":{left_out}}}}}\n')


def _events(frame: pd.DataFrame) -> map[str]:
    server = frame["worker"] < 0
    columns = (
        frame["kind"].astype(str),
        frame["start_s"] * 1e6,
        (frame["end_s"] - frame["start_s"]) * 1e6,
        server.map({True: SERVER_PID, False: WORKERS_PID}),
        frame["worker"] + FIRST_TID + 1,
        *(frame[name] for name in ("round", "version", "staleness", "steps", "bytes")),
        frame["wait_s"] * 1e6,
    )
    return map(str.__mod__, repeat(_EVENT), zip(*(column.tolist() for column in columns), strict=True))


def _track_names(worker: int) -> list[dict[str, object]]:
    pid, process, thread = (
        (SERVER_PID, "server", "server") if worker < 0 else (WORKERS_PID, "workers", f"worker {worker}")
    )
    track = {"ph": "M", "ts": 0, "pid": pid, "tid": worker + FIRST_TID + 1}
    return [
        {"name": "process_name", **track, "args": {"name": process}},
        {"name": "thread_name", **track, "args": {"name": thread}},
        {"name": "thread_sort_index", **track, "args": {"sort_index": worker + 1}},
    ]
