"""Where time goes: every nanosecond of every worker under one heading, and what links and servers did over time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from asgd_lab.backends.sim.clock import Clock, Timer

HEADINGS = ("compute", "client", "staging", "link", "queue", "gate", "down", "idle", "wasted")
COMPUTE, CLIENT, STAGING, LINK, QUEUE, GATE, DOWN, IDLE, WASTED = range(len(HEADINGS))
MOST_SAMPLES = 256
SHOWN_SAMPLES = 64


class Account:
    """One worker's time, charged piece by piece and without gaps up to `until`."""

    __slots__ = ("spent_ns", "until")

    def __init__(self) -> None:
        self.spent_ns = [0] * len(HEADINGS)
        self.until = 0

    def charge(self, heading: int, until: int) -> None:
        """All the time from where the account stands to `until`, if that is later."""
        if until > self.until:
            self.spent_ns[heading] += until - self.until
            self.until = until

    def waste(self, spent_ns: int) -> None:
        """So much of what was computed is void."""
        self.spent_ns[COMPUTE] -= spent_ns
        self.spent_ns[WASTED] += spent_ns

    def charge_stages(self, stages: Sequence[tuple[int, int]], end: int) -> None:
        """An exchange's stages in order, as far as they lie before `end`."""
        spent, since = self.spent_ns, self.until
        for heading, until in stages:
            if until > end:
                until = end
            if until > since:
                spent[heading] += until - since
                since = until
        self.until = since


def where_time_goes(accounts: Sequence[Account]) -> dict[str, Any]:
    """Seconds under each heading, of the mean worker and of each; minibatches in vain only where there were any."""
    totals = [sum(account.spent_ns[index] for account in accounts) for index in range(len(HEADINGS))]
    shown = [(name, index) for index, name in enumerate(HEADINGS) if index != WASTED or totals[index]]
    return {
        "mean": {name: totals[index] / len(accounts) * 1e-9 for name, index in shown},
        "per_worker": [{name: account.spent_ns[index] * 1e-9 for name, index in shown} for account in accounts],
    }


class Meter:
    """One link's or server's counters over time: integrals, read at regular moments, from which means follow exactly.

    The moments are some hundred however long the run becomes: when there are too many, every other one is dropped.
    """

    def __init__(self, name: str, read: Callable[[], tuple[float, float]]) -> None:
        """`read` gives the integrals up to now of utilisation, and of how many are there, in nanoseconds."""
        self.name, self._read = name, read
        self.samples: list[tuple[float, float]] = [(0.0, 0.0)]

    def sample(self) -> None:
        """Read."""
        self.samples.append(self._read())

    def thin(self) -> None:
        """Drop every other one."""
        del self.samples[1::2]

    def summary(self, times_ns: Sequence[int]) -> dict[str, Any]:
        """Means over the run and over its parts; the last part ends with the run."""
        (busy, present), end = self.samples[-1], times_ns[-1]
        every = -(-(len(times_ns) - 1) // SHOWN_SAMPLES) or 1
        chosen = [*range(0, len(times_ns) - 1, every), len(times_ns) - 1]
        pairs = [(a, b) for a, b in itertools.pairwise(chosen) if times_ns[b] > times_ns[a]]

        def means(which: int) -> list[float]:
            samples = self.samples
            return [(samples[b][which] - samples[a][which]) / (times_ns[b] - times_ns[a]) for a, b in pairs]

        return {
            "name": self.name,
            "utilisation": busy / end if end else 0.0,
            "present": present / end if end else 0.0,
            "over_time": {
                "end_s": [times_ns[b] * 1e-9 for _, b in pairs],
                "utilisation": means(0),
                "present": means(1),
            },
        }


class Meters:
    """All meters, read together."""

    def __init__(self, clock: Clock, every_ns: int, prepare: Callable[[], object]) -> None:
        """`prepare` brings what is read up to now."""
        self._clock, self._every_ns, self._prepare = clock, max(1, every_ns), prepare
        self._meters: list[Meter] = []
        self.times_ns = [0]

    def add(self, name: str, read: Callable[[], tuple[float, float]]) -> None:
        """One more."""
        self._meters.append(Meter(name, read))

    def start(self) -> None:
        """Read at regular moments from now on."""
        Timer(self._clock, self._every_ns, self._tick, background=True)

    def _tick(self) -> None:
        self.sample()
        if len(self.times_ns) > MOST_SAMPLES:
            del self.times_ns[1::2]
            for meter in self._meters:
                meter.thin()
            self._every_ns *= 2
        if not self._clock.empty:
            self.start()

    def sample(self) -> None:
        """Read all, now."""
        now = self._clock.now
        if now > self.times_ns[-1]:
            self.times_ns.append(now)
            self._prepare()
            for meter in self._meters:
                meter.sample()

    def summary(self) -> list[dict[str, Any]]:
        """Of each, in the order in which they were added."""
        return [meter.summary(self.times_ns) for meter in self._meters]
