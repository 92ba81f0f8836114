"""Layout of the effects table's rows for drawing: the lane of each row on its track, and arrows from push to apply.

Slices on one lane are disjoint or nested, as viewers of traces require. A worker's own lane has its training. Fetches
and pushes are there too if the worker waits for all of them; if training overlaps with them, they are on lanes beside
it. The parts of an exchange (its copies, its transfer) follow its row in the table, and are drawn inside it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from asgd_lab.record.columns import KINDS

if TYPE_CHECKING:
    import pandas as pd

Indices = npt.NDArray[np.int64]

FETCH, PUSH, APPLY, TO_HOST, UP, DOWN, TO_DEVICE = (
    KINDS.index(kind) for kind in ("fetch", "push", "apply", "to_host", "up", "down", "to_device")
)
_PARTS = (TO_HOST, UP, DOWN, TO_DEVICE)


def kinds(effects: pd.DataFrame) -> Indices:
    """The index in KINDS of each row."""
    return np.asarray(effects["kind"].cat.set_categories(KINDS).cat.codes, np.int64)


def clock(effects: pd.DataFrame, column: str) -> Indices:
    """A column of seconds as the integer nanoseconds that it was written from."""
    return np.rint(effects[column].to_numpy(np.float64) * 1e9).astype(np.int64)


def pack(start: Indices, end: Indices) -> Indices:
    """For each interval the lowest free lane, from 0: as many lanes as there are intervals at once."""
    lanes = np.zeros(len(start), np.int64)
    if len(start) < 2:
        return lanes
    order = np.lexsort((end, start))
    if np.all(end[order][:-1] <= start[order][1:]):
        return lanes
    busy: list[tuple[int, int]] = []  # (end of its interval, lane)
    free: list[int] = []
    for index, since, until in zip(order.tolist(), start[order].tolist(), end[order].tolist(), strict=True):
        while busy and busy[0][0] <= since:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (until, lane))
        lanes[index] = lane
    return lanes


def lanes(effects: pd.DataFrame) -> Indices:
    """The lane of every row on its worker's or server's track: 0, or 1 and more for exchanges beside training."""
    kind, worker = kinds(effects), effects["worker"].to_numpy()
    start, end = clock(effects, "start_s"), clock(effects, "end_s")
    whole = (worker >= 0) & ~np.isin(kind, _PARTS)
    found = np.zeros(len(effects), np.int64)
    if not _any_overlap(worker[whole], start[whole], end[whole]):
        return found
    beside = 1
    for which in (FETCH, PUSH):
        rows = np.flatnonzero(whole & (kind == which))
        for mine in _by_worker(rows, worker):
            found[mine] = beside + pack(start[mine], end[mine])
        beside = int(found.max()) + 1
    return found[_exchange_of(kind)]


def arrows(effects: pd.DataFrame) -> tuple[Indices, Indices]:
    """Pairs of rows: the one that sent a push (its transfer, else its copy, else itself), and the push's apply row.

    A server's rows do not name the worker. But a version is made of one push, or of the collected pushes of one round,
    which are in the same order in the server's and in the workers' rows; a round has no pairs where one of these rows
    is missing because its worker crashed. A push of one part has the version of that part; of several servers in one
    order, the first one's rows count.
    """
    kind = kinds(effects)
    pushes, applies = (_made_versions(effects, kind == each) for each in (PUSH, APPLY))
    pairs = pushes.merge(applies, on=["round", "version", "part", "together", "nth"])
    return _sender(kind)[pairs["row_x"].to_numpy()], pairs["row_y"].to_numpy()


def _made_versions(effects: pd.DataFrame, chosen: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """The chosen rows that made a version: which version, with how many others, and how many of them come before."""
    rows = np.flatnonzero(chosen & (effects["version"].to_numpy() > 0))
    found = effects[["round", "version"]].take(rows).assign(part=effects["shard"].take(rows).clip(lower=0))
    alike = found.groupby(["round", "version", "part"])["round"]
    return found.assign(row=rows, together=alike.transform("size"), nth=alike.cumcount())


def _any_overlap(worker: Indices, start: Indices, end: Indices) -> bool:
    order = np.lexsort((end, start, worker))
    worker, start, end = worker[order], start[order], end[order]
    return bool(np.any((worker[1:] == worker[:-1]) & (start[1:] < end[:-1])))


def _by_worker(rows: Indices, worker: Indices) -> list[Indices]:
    rows = rows[np.argsort(worker[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(worker[rows])) + 1)


def _exchange_of(kind: Indices) -> Indices:
    """For every part of an exchange the row of its fetch or push, which precedes it; for every other row itself."""
    rows = np.arange(len(kind))
    whole = np.where(np.isin(kind, (FETCH, PUSH)), rows, 0)
    return np.where(np.isin(kind, _PARTS), np.maximum.accumulate(whole), rows)


def _sender(kind: Indices) -> Indices:
    """For every push the row of its transfer, else of its copy, else its own."""
    sender, exchange = np.arange(len(kind)), _exchange_of(kind)
    for part in (TO_HOST, UP):
        rows = np.flatnonzero(kind == part)
        sender[exchange[rows]] = rows
    return sender
