"""Joins the files of a run's processes into its tables and counts.

The server's rows are made here from the event log: a server that only counts hears it again, and gives the versions and
staleness of all pushes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asgd_lab.backends import event_log
from asgd_lab.backends.build import build_algorithm, build_budget
from asgd_lab.backends.real.plan import DISTANCE_ROW, EFFECT_ROW, KIND, MINIBATCH_ROW, Plan
from asgd_lab.protocol.messages import DROPPED, KEPT, Ack, FetchRequest, Message, PushRequest
from asgd_lab.protocol.parts import sizes
from asgd_lab.protocol.server import Server
from asgd_lab.record.rowfile import read_rows
from asgd_lab.record.run import RunDirectory
from asgd_lab.record.summary import Statistics

SERVER = -1
APPLY, GRANT, TRAIN = KIND["apply"], KIND["grant"], KIND["train"]

Row = tuple[Any, ...]


def gather(plan: Plan, record: RunDirectory, statistics: Statistics, end_ns: int | None) -> tuple[Server, int]:
    """Fill tables and counts; return the final server, without parameters, and the end of the run's clock.

    Without `end_ns` the end is that of the last known event.
    """
    server = _counting(plan)
    effects = list(_served(plan, server, statistics, record))
    for path in sorted(plan.parts.glob("*.effects")):
        effects += read_rows(path, EFFECT_ROW).tolist()
    effects.sort(key=lambda row: (row[4], row[0]))
    if end_ns is None:
        end_ns = max((row[4] for row in effects), default=0)
    keep = record.recording.keep_round
    record.effects.extend(row for row in effects if keep(row[1]))
    minibatches = _minibatches(plan.parts)
    record.minibatches.extend(row[1:] for row in minibatches if keep(row[0]))
    for number, _, kind, began, ended, *_ in effects:
        busy_ns = min(ended, end_ns) - min(began, end_ns)  # without time after the run's end
        if kind == TRAIN:
            statistics.worker_busy(number, busy_ns)
        elif number == SERVER:
            statistics.server_busy(busy_ns)
    return server, end_ns


def _counting(plan: Plan) -> Server:
    algorithm = build_algorithm(plan.scenario)
    return Server(algorithm.gate, algorithm.n_fetch, build_budget(plan.scenario), parts=algorithm.parts)


def _served(plan: Plan, server: Server, statistics: Statistics, record: RunDirectory) -> Iterator[Row]:
    """The server's rows: one per fetch, at its request; one per push, at its end."""
    fetched = sizes(plan.size_bytes, build_algorithm(plan.scenario).parts)
    far: dict[tuple[int, int], float] = {}
    if record.distances is not None:
        far = {(worker, number): moved for worker, number, moved in read_rows(plan.distances, DISTANCE_ROW).tolist()}
    pushes: dict[tuple[int, ...], tuple[int, int, int, int]] = {}  # by worker, number, part: sent, begun, ended, bytes
    for row in event_log.read(plan.events) if plan.events.exists() else []:
        message, worker = row.message, row.worker
        if not isinstance(message, Message):
            continue
        sent, begun, ended = row.sent_ns, row.begun_ns, row.ended_ns
        if isinstance(message, PushRequest):
            pushes[worker, message.number, message.part] = (sent, begun, ended, message.size_bytes)
        elif isinstance(message, FetchRequest):
            incarnation, sequence = server.standing(worker)
            size, who = fetched[message.part], (max(0, message.part), worker, incarnation)
            yield SERVER, sequence + 1, GRANT, begun, ended, begun - sent, -1, -1, 0, size, *who
        for grant in server.hear(message, begun):
            if not isinstance(grant, Ack) or grant.version == KEPT:
                continue
            if grant.version == DROPPED:
                statistics.dropped(grant.steps)
            else:
                statistics.applied(grant.staleness, grant.steps)
                if grant.part >= 0:
                    statistics.applied_to_part(grant.part, grant.staleness)
            push = (grant.worker, grant.number)
            sent, begun, ended, carried = pushes.pop((*push, grant.part))
            if record.distances is not None and grant.version != DROPPED:
                record.distances.add((ended, grant.worker, grant.version, grant.staleness, far[push]))
            what = (grant.version, grant.staleness, grant.steps)
            who = (max(0, grant.part), grant.worker, grant.incarnation)
            yield SERVER, grant.number, APPLY, begun, ended, begun - sent, *what, carried, *who


def _minibatches(parts: Path) -> list[Row]:
    """Pairs of a round and a row of the table, in order of time."""
    rows: list[Row] = []
    for path in sorted(parts.glob("*.minibatches")):
        rows += read_rows(path, MINIBATCH_ROW).tolist()
    return sorted(rows, key=lambda row: (row[3], row[1]))
