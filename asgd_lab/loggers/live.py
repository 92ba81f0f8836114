"""Feeds loggers while a run goes on: a thread makes points of the rows, and no error or delay of a logger ends the run.

Rows come in two ways. A backend in this process tells each row as it writes it. Processes of a run write rows into
files, which are read here about once a second (`follow`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from asgd_lab.errors import shortened
from asgd_lab.loggers.base import End, LoggedRun, Logger
from asgd_lab.record.columns import KINDS, Row
from asgd_lab.record.scalar_curves import Curves, Point
from asgd_lab.users_code import said

EVERY_S = 1.0  # between two calls of a logger
MOST_WAITING = 50_000  # rows that the loggers have not taken
PATIENCE_S = 30.0  # for loggers that take no rows
END_S = 60.0  # for the loggers' end
PUSH = KINDS.index("push")

Rows = Mapping[str, Sequence[Row]]
"""New rows by their table, times in nanoseconds."""


class RowSource(Protocol):
    """Rows that other processes write during the run."""

    def began_s(self) -> float | None:
        """The Unix time at which the run's clock began; None: not yet."""

    def new(self) -> Rows:
        """The rows since the last call."""


@dataclass(slots=True)
class _Thinned:
    """A curve with about `most` points: beyond, means of twice as many of them, and so on."""

    most: int
    stride: int = 1
    made: int = 0
    waiting: list[Point] = field(default_factory=list)

    def add(self, point: Point) -> Iterator[Point]:
        self.waiting.append(point)
        if len(self.waiting) >= self.stride:
            yield from self.rest()

    def rest(self) -> Iterator[Point]:
        if self.waiting:
            value = sum(point.value for point in self.waiting) / len(self.waiting)
            yield self.waiting[-1]._replace(value=value)
            self.waiting, self.made = [], self.made + 1
            if self.made >= self.most:
                self.stride, self.made = 2 * self.stride, self.made // 2


class _Feed:
    """One logger with its curves; after an error it takes nothing."""

    def __init__(self, name: str, kind: type[Logger]) -> None:
        self.name, self._kind = name, kind
        self.place: str | None = None
        self.failure: str | None = None
        self.ended = False
        self._curves: dict[str, _Thinned] = {}
        self._logger: Logger | None = None

    def begin(self, run: LoggedRun) -> None:
        with self._guarded():
            self._logger = self._kind()
            self.place = self._logger.begin(run)

    def log(self, points: Sequence[Point]) -> None:
        with self._guarded():
            found = list(self._thinned(points))
            if found and self._logger is not None:
                self._logger.log(found)

    def end(self, status: End, final: Mapping[str, float]) -> None:
        with self._guarded():
            found = [each for curve in self._curves.values() for each in curve.rest()]
            if self._logger is not None:
                if found:
                    self._logger.log(found)
                self._logger.end(status, final)
        self.ended = True

    def _thinned(self, points: Iterable[Point]) -> Iterator[Point]:
        most = self._kind.most_points
        if most is None:
            yield from points
            return
        for point in points:
            curve = self._curves.get(point.tag)
            if curve is None:
                curve = self._curves[point.tag] = _Thinned(most)
            yield from curve.add(point)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        if self.failure is not None:
            yield  # nothing is called: the logger is gone
            return
        try:
            yield
        except (Exception, SystemExit) as error:
            why = said(error)
            self.failure, self._logger = f"log: {self.name} stopped, and the run went on without it: {why}", None


class LiveLog:
    """The loggers of one run; `virtual` says that the run's clock is not the host's."""

    def __init__(
        self, loggers: Mapping[str, type[Logger]], run: LoggedRun, *, workers: int, round_steps: int, virtual: bool
    ) -> None:
        self._run, self._virtual = run, virtual
        self._feeds = [_Feed(name, kind) for name, kind in loggers.items()]
        # Four rounds of every worker: rows of a round come together.
        self._curves = Curves(workers, most_waiting=4 * workers * (round_steps + 1))
        self._rows: deque[tuple[str, Row]] = deque()
        self._source: RowSource | None = None
        self._reading = threading.Lock()  # of the source
        self._began_s: float | None = 0.0 if virtual else None
        self._is_begun = self._is_stuck = False
        self._ending = threading.Event()
        self._status: End = "done"
        self._final: Mapping[str, float] = {}
        self._thread = threading.Thread(target=self._work, name="loggers", daemon=True)
        self._problem: str | None = None

    # ------------------------------------------------------------------ the run's side

    def begin(self) -> None:
        """The run has begun."""
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads
            self._problem = f"log: no logger could start: {error}"

    def hear(self, table: str, rows: Sequence[Row]) -> None:
        """Take rows that were just written; wait for loggers that are far behind, but not for ever."""
        if self._is_stuck or self._problem is not None or (self._source is not None and table != "evals"):
            return
        self._rows.extend((table, row) for row in rows)
        until = time.monotonic() + PATIENCE_S
        while len(self._rows) > MOST_WAITING and self._thread.is_alive() and not self._is_stuck:
            time.sleep(0.002)
            if time.monotonic() > until:
                self._is_stuck = True
                self._problem = f"log: the loggers took no rows for {PATIENCE_S:g} s, and lack all later ones"

    def follow(self, source: RowSource) -> None:
        """Read the rows of processes from their files; of the tables, only evaluations are heard from now on."""
        self._source = source

    def last(self) -> None:
        """Read the processes' last rows: their files go now."""
        self._read()

    def end(self, status: End, final: Mapping[str, float]) -> tuple[dict[str, str], list[str]]:
        """End the loggers; return the place of each log, and a line for each logger that failed."""
        self._status, self._final = status, final
        self._ending.set()
        if self._thread.is_alive():
            with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: do not wait
                self._thread.join(END_S)
        late = [feed.name for feed in self._feeds if not feed.ended and feed.failure is None]
        told = [feed.failure for feed in self._feeds if feed.failure is not None]
        told += [self._problem] if self._problem is not None else []
        if self._thread.is_alive():
            told += [f"log: {', '.join(late)} had not finished when the run's end was recorded"]
        return {feed.name: feed.place for feed in self._feeds if feed.place is not None}, told

    # ------------------------------------------------------------------ the loggers' thread

    def _work(self) -> None:
        try:
            is_over = False
            while not is_over:
                is_over = self._ending.wait(EVERY_S)
                self._read()
                self._log(self._points())
            self._begin(at_least=0.0)
            self._log(self._curves.rest())
            for feed in self._feeds:
                feed.end(self._status, self._final)
        except Exception as error:  # of a file that cannot be read
            self._problem = f"log: stopped, and the run went on: {shortened(f'{type(error).__name__}: {error}', 300)}"

    def _read(self) -> None:
        """Take new rows from the source's files."""
        with self._reading:
            if self._source is not None:
                for table, rows in self._source.new().items():
                    self._rows.extend((table, row) for row in rows)
                if self._began_s is None:
                    self._began_s = self._source.began_s()

    def _begin(self, at_least: float | None = None) -> bool:
        """Begin the loggers once the run's clock is known to have begun; return whether they are."""
        if not self._is_begun:
            began_s = self._began_s if self._began_s is not None else at_least
            if began_s is None:
                return False
            self._is_begun = True
            for feed in self._feeds:
                feed.begin(self._run._replace(began_s=began_s))
        return True

    def _log(self, points: Iterable[Point]) -> None:
        if self._began_s is None and self._source is None and self._rows:
            self._began_s = time.time()  # a backend with a clock that tells its rows
        if self._begin():
            found = list(points)
            for feed in self._feeds:
                feed.log(found)

    def _points(self) -> Iterator[Point]:
        """The points of all rows that wait."""
        curves = self._curves
        while self._rows:
            table, row = self._rows.popleft()
            yield from _points(curves, table, row)


def _points(curves: Curves, table: str, row: Any) -> Iterator[Point]:
    """The points of one row; its columns are those of `record.columns`."""
    match table:
        case "minibatches":
            worker, step, time_ns, loss, error = row
            yield from curves.minibatch(worker, step, time_ns / 1e9, loss, error)
        case "effects":
            _, _, kind, _, end_ns, _, version, staleness, *_ = row
            if kind == PUSH:
                yield from curves.push(version, end_ns / 1e9, staleness)
        case "evals":
            time_ns, _, minibatches, parameters, split, metric, value = row
            yield from curves.evaluation(minibatches, time_ns / 1e9, parameters, split, metric, value)
