"""Lock-free SGD in shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from asgd_lab.algorithms.base import Added

if TYPE_CHECKING:
    from asgd_lab.protocol.algorithms import Algorithm
    from asgd_lab.protocol.rules import Rule


class Hogwild(Added):
    """Hogwild (Niu et al. 2011): steps directly in shared parameters, no lock, no copy; cannot be replayed.

    Its recorded staleness is the number of other workers' pushes during the round. The true age of the parameters that
    a step read is unknown: every step reads them as they are.
    """

    shared = True

    name: Literal["hogwild"]
    """This algorithm's name."""

    def sentence(self, rule: Rule) -> Algorithm:
        """Niu, Recht, Ré and Wright 2011 (Hogwild!, arXiv:1106.5730): Θ ← Θ − lr·g(Θ), by all workers and in place.

        Rounds of n_sync minibatches are counted as if they were pushed: the same budget, membership and staleness.
        """
        from asgd_lab.protocol import gates, programs
        from asgd_lab.protocol.algorithms import Algorithm
        from asgd_lab.protocol.vectors import Shared

        return Algorithm(
            name=self.name,
            program=programs.coupled,
            gate=gates.asynchronous(),
            rule=rule,
            n_fetch=self.n_fetch,
            pushes=self.push,
            vectors=Shared,
            momentum_at_fetch=self.momentum_at_fetch,
            shared=True,
        )
