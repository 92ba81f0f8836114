"""Gates: who may go on. A gate is two facts; the server does the waiting and releasing.

- `bound`: how many rounds a worker may be ahead of the slowest member when it fetches (none: any number);
- `collects`: whether a version is made of one push, or of the pushes of a whole round together.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gate:
    """When a fetch is granted and what makes a version."""

    bound: int | None
    collects: bool


def asynchronous() -> Gate:
    """Nobody waits for anybody."""
    return Gate(bound=None, collects=False)


def bounded_staleness(bound: int) -> Gate:
    """Stale synchronous parallel (Ho et al. 2013): nobody starts a round while more than `bound` rounds ahead.

    Rounds are counted at the fetch, so the clocks of fastest and slowest never differ by more than bound + 1 pushes,
    and bound 0 lets nobody start round r + 1 before all have pushed round r.
    """
    return Gate(bound=bound, collects=False)


def lock_step() -> Gate:
    """Bulk-synchronous: the pushes of a round make one version together, and all go on from it."""
    return Gate(bound=0, collects=True)
