"""Rows of a run's tables as points of curves: the tags of all loggers, and of an export, are made here alone.

Rows are given one at a time, during the run or from its tables afterwards. Times are seconds of the run's clock.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

REPLICA = "replica-"
MINIBATCHES, STEP, VERSION = "minibatches", "step", "version"


class Point(NamedTuple):
    """One value of the curve `tag`.

    `axis` says what `step` counts: minibatches (of all workers), step (minibatches of this worker) or version; it is ""
    for a number of the run's end.
    """

    tag: str
    axis: str
    step: int
    time_s: float
    value: float


@dataclass(slots=True)
class _Mean:
    """The mean of the numbers among its values; a value that is NaN does not count."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        if not math.isnan(value):
            self.total += value
            self.count += 1

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else math.nan


@dataclass(slots=True)
class _Group:
    """Consecutive minibatches in time, of which one point is made."""

    rows: int = 0
    minibatches: int = 0
    time_s: float = 0.0
    means: dict[str, _Mean] = field(default_factory=lambda: {"loss": _Mean(), "error": _Mean()})


class Curves:
    """The curves of one run: means over all `workers`, and each worker's own in the group `workers`.

    Workers finish minibatches out of order, so the means wait for the slowest worker, but with at most `most_waiting`
    rows: a worker that died holds nobody up.
    """

    def __init__(self, workers: int, most_waiting: int = 1 << 20) -> None:
        self._workers, self._most_waiting = max(1, workers), most_waiting
        self._waiting: list[tuple[float, int, int, int, float, float]] = []  # a heap
        self._arrived = 0
        self._latest: dict[int, float] = {}  # each worker's last time
        self._steps: dict[int, int] = {}  # each worker's last step
        self._minibatches = 0
        self._group = _Group()
        self._evaluations: defaultdict[tuple[str, str], int] = defaultdict(int)  # of a replica, by name and replica
        self._replicas: dict[tuple[str, int], list[tuple[int, float, float]]] = {}  # by name and number

    def minibatch(self, worker: int, step: int, time_s: float, loss: float, error: float) -> Iterator[Point]:
        """A row of the table of minibatches: the worker's own values, and means that are complete now."""
        for name, value in (("loss", loss), ("error", error)):
            if not math.isnan(value):
                yield Point(f"workers/{name}/{worker}", STEP, step, time_s, value)
        heapq.heappush(self._waiting, (time_s, self._arrived, worker, step, loss, error))
        self._arrived += 1
        self._latest[worker] = max(time_s, self._latest.get(worker, time_s))
        known_s = min(self._latest.values()) if len(self._latest) >= self._workers else -math.inf
        while self._waiting and (self._waiting[0][0] <= known_s or len(self._waiting) > self._most_waiting):
            yield from self._in_order(*heapq.heappop(self._waiting))

    def push(self, version: int, time_s: float, staleness: int) -> Iterator[Point]:
        """A worker's row of a push, which has no version if it was dropped or is kept."""
        if version > 0:
            yield Point("staleness", VERSION, version, time_s, staleness)

    def evaluation(
        self, minibatches: int, time_s: float, parameters: str, split: str, metric: str, value: float
    ) -> Iterator[Point]:
        """A row of the table of evaluations: its value, and the replicas' mean if that is complete now."""
        name = f"{split}_{metric}"
        whose = parameters.removeprefix(REPLICA)
        is_replica = whose != parameters
        if not math.isnan(value):
            tag = f"workers/{name}/{whose}" if is_replica else f"{name}/{whose}"
            yield Point(tag, MINIBATCHES, minibatches, time_s, value)
        if is_replica:
            number = self._evaluations[name, whose]
            self._evaluations[name, whose] += 1
            together = self._replicas.setdefault((name, number), [])
            together.append((minibatches, time_s, value))
            if len(together) == self._workers:
                yield from self._mean_of_replicas(name, number)

    def rest(self) -> Iterator[Point]:
        """The means that were incomplete when the run ended."""
        while self._waiting:
            yield from self._in_order(*heapq.heappop(self._waiting))
        yield from self._mean()
        for name, number in sorted(self._replicas):
            yield from self._mean_of_replicas(name, number)

    def _in_order(self, time_s: float, _: int, worker: int, step: int, loss: float, error: float) -> Iterator[Point]:
        """Add the next minibatch in time. Those that were not recorded count too: a worker counts its steps from 0."""
        self._minibatches += step - self._steps.get(worker, -1)
        self._steps[worker] = step
        group = self._group
        group.rows, group.minibatches, group.time_s = group.rows + 1, self._minibatches, time_s
        group.means["loss"].add(loss)
        group.means["error"].add(error)
        if group.rows == self._workers:
            yield from self._mean()

    def _mean(self) -> Iterator[Point]:
        group, self._group = self._group, _Group()
        for name, mean in group.means.items():
            if mean.count:
                yield Point(f"{name}/mean", MINIBATCHES, group.minibatches, group.time_s, mean.value)

    def _mean_of_replicas(self, name: str, number: int) -> Iterator[Point]:
        """The mean of the replicas' evaluations of this number; their times are averaged too."""
        together = self._replicas.pop((name, number))
        mean = _Mean()
        for _, _, value in together:
            mean.add(value)
        if mean.count:
            minibatches = int(sum(each for each, _, _ in together) / len(together))
            time_s = sum(each for _, each, _ in together) / len(together)
            yield Point(f"{name}/replicas_mean", MINIBATCHES, minibatches, time_s, mean.value)
