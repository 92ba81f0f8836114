"""Delay-compensated ASGD (Zheng et al. 2017, arXiv:1609.08326, equation 10): corrected by what has moved."""

import torch

from asgd_lab import extending as lab


class DelayCompensated(lab.Link):
    """g <- g + strength g * g * (x - x_fetched), elementwise; Algorithm 2 with a constant strength (lambda)."""

    takes = makes = "gradient"
    strength: float = 0.04

    def build(self, workers: int) -> lab.Rule:
        return lab.Rule("delay_compensated", "gradient", "gradient", 0, self.step, on_each=True, needs_center=True)

    def step(
        self, update: lab.Scaled, context: lab.Context, _: lab.State, __: lab.State, work: lab.Workspace
    ) -> lab.Scaled:
        gradient, alpha = update
        moved = torch.sub(context.current, context.center(context.pushes[0].worker), out=work.other_than(gradient))
        moved.mul_(gradient).mul_(gradient).mul_(self.strength * alpha * alpha)
        return moved.add_(gradient, alpha=alpha), 1.0
