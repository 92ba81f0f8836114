"""Lock-step SGD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

import asgd_lab.algorithms.rules as rules
from asgd_lab.algorithms.base import Links, Ruled

if TYPE_CHECKING:
    from asgd_lab.protocol.algorithms import Algorithm
    from asgd_lab.protocol.rules import Rule


class SyncSgd(Ruled):
    """Lock-step: the server collects one push of every worker, makes one version of them, and releases all workers."""

    collects = True

    name: Literal["sync_sgd"]
    """This algorithm's name."""
    rule: Links = Field(default=[rules.Mean(name="mean")])

    def sentence(self, rule: Rule) -> Algorithm:
        """Bulk-synchronous data parallelism; with n_sync > 1 it is local SGD with a mean of M workers.

        Θ ← Θ + rule(Σ Δ_m) over all members m, in worker order; its default, the mean, divides by their number.
        """
        from asgd_lab.protocol import gates
        from asgd_lab.protocol.algorithms import blocking

        return blocking(self, gates.lock_step(), rule)
