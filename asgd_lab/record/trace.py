"""A run as Chrome trace events for ui.perfetto.dev: tracks of workers, servers and links, an arrow from every push to
its application, and the utilisation of servers and links; times in microseconds.

It is written from the effects table and the summary alone. A table may hold more than a viewer can show: the first
MAX_EFFECTS rows are written, and the others are counted in `otherData.effects_left_out`. Rows become text by operations
on whole columns: a loop over them would take longer than many a simulation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asgd_lab.record import atomic_files, tables, tracks
from asgd_lab.record.columns import KINDS
from asgd_lab.record.tracks import DOWN, PUSH, UP, Indices

if TYPE_CHECKING:
    import pandas as pd

MAX_EFFECTS = 250_000
# Track numbers start at 1: to a trace viewer process 0 is the idle task. A thread numbered like its process would be
# taken for its main thread.
SERVER_PID, WORKERS_PID, UP_PID, DOWN_PID, RESOURCES_PID = 1, 2, 3, 4, 5
FIRST_TID = 10
_PROCESSES = {
    SERVER_PID: "server",
    WORKERS_PID: "workers",
    UP_PID: "transfers to the server",
    DOWN_PID: "transfers to the workers",
    RESOURCES_PID: "utilisation, and number present",
}
_ROWS_AT_ONCE = 32_768
_SHOWN_FROM = {"round": 0, "version": 0, "staleness": 0, "steps": 1, "bytes": 1, "wait": 1}
_UNITS = {"wait": "wait_us"}
_FRACTIONS = ["", *(f".{nanoseconds:03}".rstrip("0") for nanoseconds in range(1, 1000))]


def write(run_dir: Path | str, max_effects: int = MAX_EFFECTS) -> Path:
    """Write trace.json beside the run's effects table, and beside its summary if there is one."""
    path = Path(run_dir) / "trace.json"
    effects, left_out = tables.first(run_dir, "effects", max_effects)
    events = _placed(effects)
    with atomic_files.replacing(path, durable=False) as file:
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        for since in range(0, len(events), _ROWS_AT_ONCE):
            file.write(_text(events.iloc[since : since + _ROWS_AT_ONCE]))
        others = [*_names(events), *_counters(Path(run_dir))]
        file.write(",\n".join(json.dumps(event, separators=(",", ":")) for event in others).encode())
        file.write(b'\n],"otherData":{"effects_left_out":%d}}\n' % left_out)
    return path


def _placed(effects: pd.DataFrame) -> pd.DataFrame:
    """The rows as events in the order of the file: times in nanoseconds, process and thread, process and thread of the
    link (0: none), number and time of the arrow that begins or ends there (-1: none)."""
    kind, worker = tracks.kinds(effects), effects["worker"].to_numpy()
    start, end, wait = (tracks.clock(effects, name) for name in ("start_s", "end_s", "wait_s"))
    lane, serves = tracks.lanes(effects), worker < 0
    width = int(lane.max(initial=0)) + 1
    link_pid, link_tid = np.zeros_like(kind), np.zeros_like(kind)
    for transfer, pid in ((UP, UP_PID), (DOWN, DOWN_PID)):
        rows = np.flatnonzero(kind == transfer)
        link_pid[rows], link_tid[rows] = pid, FIRST_TID + tracks.pack(start[rows], end[rows])
    senders, applies = tracks.arrows(effects)
    arrow, arrow_at = np.full_like(kind, -1), start.copy()
    arrow[senders] = arrow[applies] = applies
    # Viewers differ on the slice of a moment between two. So both ends lie inside, by a nanosecond.
    arrow_at[applies] = np.minimum(start[applies] + 1, end[applies])
    arrow_at[senders] = _sent(kind[senders], start[senders], end[senders], start[applies], wait[applies])
    placed = effects.assign(
        kind=kind,
        start=start,
        end=end,
        wait=wait,
        lane=lane,
        pid=np.where(serves, SERVER_PID, WORKERS_PID),
        tid=FIRST_TID + np.where(serves, effects["shard"].to_numpy().clip(0), worker * width + lane),
        link_pid=link_pid,
        link_tid=link_tid,
        arrow=arrow,
        arrow_at=arrow_at,
    )
    # A viewer takes events of one moment in the order of the file. So an outer slice stands before the slices inside
    # it, as in the table, and a push before its application.
    return placed.iloc[np.lexsort((serves, start))]


def _sent(kind: Indices, start: Indices, end: Indices, applied: Indices, waited: Indices) -> Indices:
    """The moment in a slice at which its push was sent: the end of its transfer or of its copy, less a nanosecond; the
    arrival where there is neither."""
    arrived = np.minimum(applied, applied - waited)
    first = np.where(kind == PUSH, np.minimum(start + 1, end), start)
    return np.asarray(np.maximum(first, np.minimum(arrived, end - 1)), np.int64)


def _text(events: pd.DataFrame) -> memoryview:
    """The events as lines that end in a comma: each row's slice, then the link's slice, then the arrow."""
    transfers, arrows = (events["link_pid"] > 0).to_numpy(), (events["arrow"] >= 0).to_numpy()
    lines = _join(
        _slices(events), _spread(_transfers(events[transfers]), transfers), _spread(_arrows(events[arrows]), arrows)
    )
    _, ends, text = lines.buffers()
    return memoryview(text)[: int(np.frombuffer(ends, np.int32)[len(lines)])]


def _slices(events: pd.DataFrame) -> Any:
    import pyarrow as pa

    kinds = pa.array(KINDS).take(pa.array(events["kind"]))
    at = _at(events["start"], events["pid"], events["tid"])
    duration = _micros(events["end"] - events["start"])
    what = ('{"name":"', kinds, '","cat":"effect","ph":"X"', at)
    return _join(*what, ',"dur":', duration, ',"args":{', _arguments(events), "}},\n")


def _transfers(events: pd.DataFrame) -> Any:
    at = _at(events["start"], events["link_pid"], events["link_tid"])
    what = ('{"name":"worker ', _digits(events["worker"]), '","cat":"transfer","ph":"X"', at)
    return _join(*what, ',"dur":', _micros(events["end"] - events["start"]), "},\n")


def _arrows(events: pd.DataFrame) -> Any:
    import pyarrow as pa

    ends = pa.array((events["pid"] == SERVER_PID).to_numpy(np.int8))
    phase = pa.array(['"s"', '"f","bp":"e"']).take(ends)
    at = _at(events["arrow_at"], events["pid"], events["tid"])
    return _join('{"name":"applied","cat":"push","ph":', phase, ',"id":', _digits(events["arrow"]), at, "},\n")


def _at(nanoseconds: pd.Series[int], pid: pd.Series[int], tid: pd.Series[int]) -> Any:
    return _join(',"ts":', _micros(nanoseconds), ',"pid":', _digits(pid), ',"tid":', _digits(tid))


def _arguments(events: pd.DataFrame) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    fields = []
    for name, least in _SHOWN_FROM.items():
        values = _micros(events[name]) if name in _UNITS else _digits(events[name])
        shown = pa.array((events[name] >= least).to_numpy())
        fields.append(pc.if_else(shown, _join(f'"{_UNITS.get(name, name)}":', values), pa.scalar(None, pa.string())))
    return pc.binary_join_element_wise(*fields, ",", null_handling="skip")


def _join(*parts: Any) -> Any:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(*parts, "")


def _digits(values: pd.Series[int]) -> Any:
    import pyarrow as pa

    return pa.array(values.to_numpy(np.int64)).cast(pa.string())


def _micros(nanoseconds: pd.Series[int]) -> Any:
    """Microseconds in full, without zeros at the end."""
    import pyarrow as pa

    whole, rest = np.divmod(nanoseconds.to_numpy(np.int64), 1000)
    return _join(pa.array(whole).cast(pa.string()), pa.array(_FRACTIONS).take(pa.array(rest)))


def _spread(texts: Any, where: Any) -> Any:
    """The texts at their places among empty ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = pa.array(np.cumsum(where) - 1, mask=~where)
    return pc.fill_null(texts.take(places), "")


def _names(events: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Events that name and order the tracks."""
    several = bool((events["shard"] > 0).any())
    named = {}
    shown = events[["pid", "tid", "worker", "lane", "kind", "shard"]].drop_duplicates(["pid", "tid"])
    for pid, tid, worker, lane, kind, shard in shown.itertuples(index=False):
        if pid == SERVER_PID:
            named[pid, tid] = f"server {shard}" if several else "server"
        else:
            named[pid, tid] = f"worker {worker}" + (f" {KINDS[kind]}" if lane else "")
    links = events.loc[events["link_pid"] > 0, ["link_pid", "link_tid"]].drop_duplicates()
    for pid, tid in links.itertuples(index=False):
        named[pid, tid] = f"lane {tid - FIRST_TID}"
    for pid in sorted({pid for pid, _ in named}):
        yield _process(pid)
    for pid, tid in sorted(named):
        track = {"ph": "M", "ts": 0, "pid": pid, "tid": tid}
        yield {"name": "thread_name", **track, "args": {"name": named[pid, tid]}}
        yield {"name": "thread_sort_index", **track, "args": {"sort_index": tid}}


def _counters(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Counters of each server and link: means over spans of the run, shown from the start of each span."""
    path = run_dir / "summary.json"
    summary = atomic_files.read_json(path) if path.exists() else {}
    resources = summary.get("resources", ())
    if resources:
        yield _process(RESOURCES_PID)
    for resource in resources:
        course = resource["over_time"]
        track = {"ph": "C", "name": resource["name"], "pid": RESOURCES_PID, "tid": FIRST_TID}
        begins = [0.0, *course["end_s"]]
        for begin, busy, present in zip(begins, [*course["utilisation"], 0], [*course["present"], 0], strict=True):
            means = {"utilisation": round(busy, 6), "present": round(present, 6)}
            yield {**track, "ts": round(begin * 1e6, 3), "args": means}


def _process(pid: int) -> dict[str, Any]:
    return {"name": "process_name", "ph": "M", "ts": 0, "pid": pid, "args": {"name": _PROCESSES[pid]}}
