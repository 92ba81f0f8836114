"""The display of a sweep: the progress of its points during it, and tables of its results after it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import TaskID

from asgd_lab import metric_words
from asgd_lab.app.display import say
from asgd_lab.app.progress_display import PLAIN_EVERY_S, Pace, bars
from asgd_lab.app.terminal_tables import Columns
from asgd_lab.backends.outcome import Progress
from asgd_lab.record.replications import COURSE, Estimate
from asgd_lab.run_points import Together
from asgd_lab.scenario import Scenario
from asgd_lab.summary_words import crew
from asgd_lab.sweep_tables import Group

RATE_OVER_S = 3600.0  # points may be long


@contextlib.contextmanager
def sweep_display(console: Console, total: int, done: int, *, live: bool) -> Iterator[SweepDisplay]:
    """Show the progress of a sweep inside."""
    shown = SweepDisplay(console, total, done, live)
    with shown.bars:
        yield shown


@dataclass(slots=True)
class _Running:
    bar: TaskID
    pace: Pace
    share: float | None = None


class SweepDisplay(Together):
    """The number of finished points and the progress of running ones: bars on a terminal, else a line now and then."""

    def __init__(self, console: Console, total: int, done: int, live: bool) -> None:
        self._console, self._total, self._done, self._live = console, total, done, live
        # Without a terminal the bars only estimate the remaining time.
        self.bars = bars(console, live=live, refresh_per_second=4, speed_estimate_period=RATE_OVER_S)
        self._all = self.bars.add_task("", total=total)
        self._running: dict[str, _Running] = {}
        self._due_s = -math.inf
        self._count()

    def look(self, name: str, scenario: Scenario, progress: Progress) -> None:
        """Show the progress of a running point."""
        if name not in self._running:
            self._running[name] = _Running(self.bars.add_task(name, total=None), Pace(scenario))
        point = self._running[name]
        point.share = point.pace.share(progress)
        if point.share is not None:
            self.bars.update(point.bar, total=1.0, completed=point.share)
        self._count()
        if not self._live and progress.seconds > 0 and time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + PLAIN_EVERY_S
            say(self._console, self._line())

    def over(self, name: str) -> None:
        """Count a point that has ended, with or without success."""
        self.bars.remove_task(self._running.pop(name).bar)
        self._done += 1
        self._count()

    def _count(self) -> None:
        points = f"{self._done}/{self._total} points"
        shares = sum(point.share or 0.0 for point in self._running.values())
        self.bars.update(self._all, description=points, completed=self._done + shares)

    def _line(self) -> str:
        shares = {name: "" if point.share is None else f" {point.share:.0%}" for name, point in self._running.items()}
        left_s = next(task.time_remaining for task in self.bars.tasks if task.id == self._all)
        left = "" if left_s is None else f"; {timedelta(seconds=round(left_s))} left"
        return "running: " + "; ".join(f"{name}{share}" for name, share in shares.items()) + left


def results(groups: Sequence[Group]) -> Iterator[Columns]:
    """A row per point, replications as mean ± half-width of the 95% interval; then the differences to the first."""
    means = {group.name: group.means() for group in groups}
    if means:
        base = crew(groups[0].fewest_workers)
        told = {
            "speedup": f"speed-up: minibatches/s over those of {base}",
            "target_speedup": f"speed-up to target: seconds to it of {base} over those of the point",
        }
        titles = [words for metric, words in told.items() if any(metric in row for row in means.values())]
        title = "; ".join(titles) or None
        yield _estimates(means, metric_words.spec, title)
    against = {group.name: group.against(groups[0]) for group in groups[1:]}
    if any(against.values()):
        yield _estimates(against, lambda _: "+,.4g", f"minus {groups[0].name}, paired by seed")


def _estimates(
    rows: Mapping[str, Mapping[str, Estimate]], spec: Callable[[str], str], title: str | None = None
) -> Columns:
    """A table of estimates; a target and test metrics are the most important columns, the run's course is the least."""
    metrics = metric_words.ordered(rows)
    important = [metric_words.heading(name) for name in sorted(metrics, key=_importance)]
    headings, cells = metric_words.table(rows, metrics, spec)
    return Columns(headings, cells, important, title)


def _importance(metric: str) -> int:
    ranks = (
        "_to_target" in metric,
        metric == "target_speedup",
        metric.startswith("test_"),
        metric in metric_words.FIRST,
        metric not in COURSE,
        True,
    )
    return ranks.index(True)
