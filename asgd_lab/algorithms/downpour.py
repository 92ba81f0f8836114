"""Asynchronous SGD with communication that overlaps with training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from asgd_lab.algorithms.base import Apart

if TYPE_CHECKING:
    from asgd_lab.protocol.algorithms import Algorithm
    from asgd_lab.protocol.rules import Rule


class Downpour(Apart):
    """Downpour SGD (Dean et al. 2012): as asgd, but training goes on while pushes and the next fetch are in flight."""

    one_server = False
    overlaps = True

    name: Literal["downpour"]
    """This algorithm's name."""
    depth: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pushes that a worker may have in flight at once."""

    def sentence(self, rule: Rule) -> Algorithm:
        """Dean et al. 2012 (Large Scale Distributed Deep Networks), Algorithm 1.1, as DistBelief ran it.

        Δ = Σ (θ − anchor) over the stretches since the last push; the anchor is the center at the start of a stretch,
        or the θ of the last push; Θ ← Θ + rule(Δ). With push: gradient, Δ = Σ g, the "accrued gradients".
        """
        from functools import partial

        from asgd_lab.protocol import gates, programs
        from asgd_lab.protocol.algorithms import Algorithm
        from asgd_lab.protocol.vectors import AnchoredDelta, GradientSum

        return Algorithm(
            name=self.name,
            program=partial(programs.overlapped, n_push=self.n_push, depth=self.depth),
            gate=gates.asynchronous(),
            rule=rule,
            n_fetch=self.n_fetch,
            pushes=self.push,
            vectors=AnchoredDelta
            if self.push == "delta"
            else GradientSum,  # the center is let go while it is worked on
            momentum_at_fetch=self.momentum_at_fetch,
            depth=self.depth,
            overlaps=True,
        )
