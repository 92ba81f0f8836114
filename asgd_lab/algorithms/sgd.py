"""SGD of one worker, the reference for all other algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from asgd_lab.algorithms.base import Added, NSync

if TYPE_CHECKING:
    from asgd_lab.protocol.algorithms import Algorithm
    from asgd_lab.protocol.rules import Rule


class Sgd(Added):
    """Plain SGD: one worker; its deltas are added as they are."""

    most_workers = 1
    one_server = False

    name: Literal["sgd"]
    """This algorithm's name."""
    n_sync: NSync = 1

    def sentence(self, rule: Rule) -> Algorithm:
        """Θ ← Θ + (θ − Θ), which is θ up to rounding, for any n_sync: the local optimizer's steps and nothing else."""
        from asgd_lab.protocol import gates
        from asgd_lab.protocol.algorithms import blocking

        return blocking(self, gates.asynchronous(), rule)
