"""The virtual clock: simpy's environment, whose time is an integer number of nanoseconds."""

from __future__ import annotations

import simpy


class Clock(simpy.Environment):
    """Starts at 0. Delays given to it are integers, so its time is one."""

    @property
    def now(self) -> int:
        """Nanoseconds of virtual time."""
        return self._now  # type: ignore[return-value]
