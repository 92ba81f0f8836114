"""Accounts of time: every nanosecond of every worker under one heading, and meters of links and servers over time."""

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
    """One worker's time, charged in pieces without gaps up to `until`."""

    __slots__ = ("spent_ns", "until")

    def __init__(self) -> None:
        self.spent_ns = [0] * len(HEADINGS)
        self.until = 0

    def charge(self, heading: int, until: int) -> None:
        """Charge the time from the account's end to `until`, if that is later."""
        if until > self.until:
            self.spent_ns[heading] += until - self.until
            self.until = until

    def waste(self, spent_ns: int) -> None:
        """Move so much computing time to the wasted part."""
        self.spent_ns[COMPUTE] -= spent_ns
        self.spent_ns[WASTED] += spent_ns

    def charge_stages(self, stages: Sequence[tuple[int, int]], end: int) -> None:
        """Charge an exchange's stages in order, up to `end`."""
        spent, since = self.spent_ns, self.until
        for heading, until in stages:
            if until > end:
                until = end
            if until > since:
                spent[heading] += until - since
                since = until
        self.until = since


def where_time_goes(accounts: Sequence[Account]) -> dict[str, Any]:
    """Seconds under each heading, for the mean worker and for each; wasted minibatches only if there were any."""
    totals = [sum(account.spent_ns[index] for account in accounts) for index in range(len(HEADINGS))]
    shown = [(name, index) for index, name in enumerate(HEADINGS) if index != WASTED or totals[index]]
    return {
        "mean": {name: totals[index] / len(accounts) * 1e-9 for name, index in shown},
        "per_worker": [{name: account.spent_ns[index] * 1e-9 for name, index in shown} for account in accounts],
    }


class Meter:
    """One link's or server's counters over time: integrals, sampled at regular times, so means are exact.

    There are some hundred samples for a run of any length: when there are too many, every other one is dropped.
    """

    def __init__(self, name: str, read: Callable[[], tuple[float, float]]) -> None:
        """`read` returns the integrals up to now of utilisation and of the number present, in nanoseconds."""
        self.name, self._read = name, read
        self.samples: list[tuple[float, float]] = [(0.0, 0.0)]

    def sample(self) -> None:
        self.samples.append(self._read())

    def thin(self) -> None:
        """Drop every other sample."""
        del self.samples[1::2]

    def summary(self, times_ns: Sequence[int]) -> dict[str, Any]:
        """Means over the run and over its spans; the last span ends with the run."""
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
    """All meters, sampled together."""

    def __init__(self, clock: Clock, every_ns: int, prepare: Callable[[], object]) -> None:
        """`prepare` brings all integrals up to now; it is called before each sample."""
        self._clock, self._every_ns, self._prepare = clock, max(1, every_ns), prepare
        self._meters: list[Meter] = []
        self.times_ns = [0]

    def add(self, name: str, read: Callable[[], tuple[float, float]]) -> None:
        self._meters.append(Meter(name, read))

    def start(self) -> None:
        """Take samples at regular times from now on."""
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
        """Take a sample of all meters now."""
        now = self._clock.now
        if now > self.times_ns[-1]:
            self.times_ns.append(now)
            self._prepare()
            for meter in self._meters:
                meter.sample()

    def summary(self) -> list[dict[str, Any]]:
        """The summaries of all meters, in the order of their addition."""
        return [meter.summary(self.times_ns) for meter in self._meters]
