"""Asynchronous SGD with a bound on how far its workers drift apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from asgd_lab.algorithms.base import Ruled

if TYPE_CHECKING:
    from asgd_lab.protocol.algorithms import Algorithm
    from asgd_lab.protocol.rules import Rule


class Ssp(Ruled):
    """Stale synchronous parallel (Ho et al. 2013): as asgd, but no worker starts a round too far ahead."""

    name: Literal["ssp"]
    """This algorithm's name."""
    bound: Annotated[int, Field(ge=0)]
    """The most rounds that a worker may be ahead of the slowest when it begins one, so their counts of pushes differ by
    bound + 1 at most; with 0, no worker begins a round before all have pushed the previous one."""

    def sentence(self, rule: Rule) -> Algorithm:
        """Ho et al. 2013 (More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server), section 3.

        With c_m the pushes of worker m, it may fetch while c_m − min(c) ≤ bound; all else as asgd.
        """
        from asgd_lab.protocol import gates
        from asgd_lab.protocol.algorithms import blocking

        return blocking(self, gates.bounded_staleness(self.bound), rule)
