"""Asynchronous SGD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from asgd_lab.algorithms.base import Apart

if TYPE_CHECKING:
    from asgd_lab.protocol.algorithms import Algorithm
    from asgd_lab.protocol.rules import Rule


class Asgd(Apart):
    """GPU A-SGD (Paine et al. 2013): local steps, push, fetch, no waiting. Give n_sync, or n_fetch and n_push."""

    one_server = False

    name: Literal["asgd"]
    """This algorithm's name."""

    def sentence(self, rule: Rule) -> Algorithm:
        """Paine, Jin, Yang, Lin and Huang 2013 (arXiv:1312.6186), section 3; n_fetch != n_push is Dean et al. 2012.

        A worker's θ ← Θ, fetched at version v; n_sync steps of its optimizer; Δ = θ − Θ; the server's Θ ← Θ + rule(Δ)
        makes version v + 1 + s, where s, the staleness, are the versions that others made meanwhile.
        """
        from asgd_lab.protocol import gates
        from asgd_lab.protocol.algorithms import blocking

        return blocking(self, gates.asynchronous(), rule)
