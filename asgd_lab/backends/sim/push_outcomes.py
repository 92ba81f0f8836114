"""Outcomes of pushes: counted, and written into the server's rows; kept pushes wait here for their end."""

from __future__ import annotations

from typing import NamedTuple

from asgd_lab.backends.sim.push import Push
from asgd_lab.backends.sim.rows import Rows, Service
from asgd_lab.protocol.messages import DROPPED, Ack
from asgd_lab.record.summary import Statistics


class Kept(NamedTuple):
    """A copy of a push's state after its service: its worker continues, and reuses the push object."""

    services: list[Service]
    ended: int
    distance: float


class PushOutcomes:
    """Counts the outcomes."""

    def __init__(self, statistics: Statistics, rows: Rows, divided: bool) -> None:
        """`divided`: whether pushes are of single parts."""
        self.statistics, self._rows = statistics, rows
        self._services, self._divided = rows.any, divided
        self._distances = rows.distances is not None
        self._writes = self._services or self._distances or divided
        self._kept: dict[tuple[int, int, int], Kept] = {}  # by worker, number and part

    def keep(self, push: Push) -> None:
        """Note a push that the server keeps; a later answer ends it."""
        request = push.request
        self._kept[request.worker, request.number, request.part] = self._served(push)

    def was_kept(self, ack: Ack) -> bool:
        """Whether this answer ends a kept push, for which no worker waits; if so, it is counted here."""
        served = self._kept.pop((ack.worker, ack.number, ack.part), None) if self._kept else None
        if served is None:
            return False
        self._count(ack)
        self._write(served, ack)
        return True

    def ended(self, push: Push, ack: Ack) -> None:
        """Count a push that has ended, by its answer."""
        _, _, _, version, staleness, steps, _, _ = ack  # faster than attributes, for every push
        if version == DROPPED:
            self.statistics.dropped(steps)
        else:
            self.statistics.applied(staleness, steps)
        if self._writes:
            self._write(self._served(push), ack)

    def _served(self, push: Push) -> Kept:
        services = self._rows.services(push, push.request.size_bytes) if self._services else []
        return Kept(services, push.served, push.distance)

    def _count(self, ack: Ack) -> None:
        if ack.version == DROPPED:
            self.statistics.dropped(ack.steps)
        else:
            self.statistics.applied(ack.staleness, ack.steps)

    def _write(self, served: Kept, ack: Ack) -> None:
        if ack.version != DROPPED:
            if self._divided:
                self.statistics.applied_to_part(ack.part, ack.staleness)
            if self._distances:
                self._rows.distance(served.ended, served.distance, ack)
        for service in served.services:
            self._rows.apply(service, ack)
