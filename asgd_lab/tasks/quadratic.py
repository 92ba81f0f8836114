"""The noisy quadratic: loss 1/2 Σ hᵢ xᵢ²; a minibatch of B gives the gradient h·x with noise of variance c/B.

Its course is known in closed form (Zhang et al. 2019, "Which Algorithmic Choices Matter at Which Batch Sizes?"), so
runs can be compared with theory. P is the number of coordinates: the vector has no gaps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import key
from asgd_lab.task_keys.toys import QuadraticKeys
from asgd_lab.tasks.base import CPU, Bufferless, OneByOne, one_line
from asgd_lab.tasks.clipping_and_schedules import Adjust, adjuster
from asgd_lab.tasks.flat import Layout
from asgd_lab.tasks.global_generators import preserving_generators
from asgd_lab.tasks.gradient_pushes import check_groups, step_doubts
from asgd_lab.tasks.optimizer_state import check_restored, load_state, state_of
from asgd_lab.tasks.optimizers import MakeOptimizer, optimizer


def expected_loss(
    curvature: Sequence[float], noise: float, batch_size: int, lr: float, steps: int, start: float = 1.0
) -> float:
    """The expected loss after k steps of plain SGD (Zhang et al. 2019): with q = (1−lr·h)^2k, in each coordinate
    q·l₀ + (1−q)·lr·c / (2B(2−lr·h)).

    It is computed as a geometric sum, which also holds at lr·h = 2, where the formula divides by zero.
    """
    total = 0.0
    for h in curvature:
        contraction = (1 - lr * h) ** 2
        kept = contraction**steps
        gathered = steps if contraction == 1 else (1 - kept) / (1 - contraction)
        total += 0.5 * h * (kept * start**2 + gathered * lr**2 * noise / batch_size)
    return total


@final
class QuadraticLearner:
    """Steps of torch.optim on the vector itself."""

    def __init__(
        self,
        params: Tensor,
        gradients: Tensor | None,
        curvature: Tensor,
        deviation: float,
        make: MakeOptimizer,
        stream: tuple[int, int],
        adjust: Adjust | None = None,
    ) -> None:
        self.params, self._params = params, params.detach()  # the same memory, with a `grad` of its own
        self._gradient = self._params.grad = torch.zeros_like(params)
        self._gradients = gradients
        self._curvature = curvature.to(params.device)
        self._deviation = deviation
        self._make = make
        self.optimizer = make([self._params])
        self._seed, self._worker = stream
        self._adjust = adjust
        self.version = 0
        # Noise is drawn on the host, so a run on another device has the same.
        self._noise = torch.empty(params.shape)
        self._generator = torch.Generator()

    def minibatch(self, step: int) -> tuple[float, float]:
        """Take one local step in place; return the exact loss before it, and nan for the error."""
        gradient = self._gradient
        torch.mul(self._curvature, self._params, out=gradient)
        loss = 0.5 * torch.dot(gradient, self._params).item()
        if self._deviation:
            self._generator.manual_seed(key(self._seed, "noise", self._worker, step))
            gradient += self._noise.normal_(0.0, self._deviation, generator=self._generator).to(gradient.device)
        if self._gradients is not None:
            self._gradients += gradient
        if self._adjust is not None:
            self._adjust([self.optimizer], [self._params], step, self.version)
        self.optimizer.step()
        if self._params.data_ptr() != self.params.data_ptr():  # an optimizer may give it other data
            self.params.copy_(self._params)
            self._params.data = self.params
        return loss, math.nan

    def reset_momentum(self) -> None:
        self.optimizer = self._make([self._params])

    def buffers(self) -> dict[str, Tensor]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return state_of(self.optimizer)

    def load(self, state: Mapping[str, Tensor]) -> None:
        load_state(self.optimizer, state)

    def warm_up(self) -> None:
        """Take a step with a copy of the learner: the learner stays as it was."""
        scratch = self._params.clone()
        gradients = None if self._gradients is None else scratch.clone()
        stream = (self._seed, self._worker)
        QuadraticLearner(scratch, gradients, self._curvature, self._deviation, self._make, stream).minibatch(0)


@final
class QuadraticTask(Bufferless):
    """The quadratic, its noise, and the factory of optimizers."""

    def __init__(self, config: QuadraticKeys, seed: int) -> None:
        self._curvature = torch.tensor(config.curvature, dtype=torch.float32)
        self._deviation = math.sqrt(config.noise / config.batch_size)
        self._start = config.start
        self._seed = seed
        self._layout = Layout.of([self._curvature.shape])
        self._make = optimizer(config.optimizer)
        self._adjust = adjuster(config.schedule, None)
        self._make([self.initial()])
        self.size = self._layout.size
        self.size_bytes = 4 * self.size

    def initial(self) -> Tensor:
        """(P,) with the same value in each coordinate."""
        return torch.full_like(self._curvature, self._start)

    def learner(self, worker: int, params: Tensor, gradients: Tensor | None = None) -> QuadraticLearner:
        (params,) = self._layout.views(params)
        if gradients is not None:
            (gradients,) = self._layout.views(gradients)
        stream = (self._seed, worker)
        return QuadraticLearner(params, gradients, self._curvature, self._deviation, self._make, stream, self._adjust)

    def batch(self, device: torch.device = CPU) -> OneByOne:
        """A loop over learners: most of a step is the noise, which each replica draws from its own stream."""
        return OneByOne()

    def check(self, *, gradients: bool = False, device: torch.device = CPU) -> None:
        """Take two minibatches: an optimizer reads its own state at the second."""
        params = self.initial().to(device)
        learner = self.learner(0, params, torch.zeros_like(params) if gradients else None)
        for step in range(2):
            try:
                learner.minibatch(step)
            except Exception as error:
                message = f"step {step + 1} of it fails: {one_line(error)}"
                raise ScenarioError.at("task.optimizer", message) from error
        if gradients:
            check_groups(self._make([params]))
            self.doubts = tuple(step_doubts(self._make, [params]))

    def check_resume(self, *, device: torch.device = CPU) -> None:
        """A `ScenarioError` if its optimizer, restored from a checkpoint, has other attributes."""
        with preserving_generators():
            before, after = (self.learner(0, self.initial().to(device)) for _ in range(2))
            for step in range(3):
                before.minibatch(step)
            after.load({name: value.clone() for name, value in before.state().items()})
            after.params.copy_(before.params)
            for each in (before, after):
                each.minibatch(3)
        check_restored(before.optimizer, after.optimizer)

    def evaluate(
        self, params: Tensor, buffers: Mapping[str, Tensor] | None = None, *, of_replica: bool = False
    ) -> list[tuple[str, str, float]]:
        """The exact expected loss, in double precision."""
        exact = params.detach().to("cpu", torch.float64)
        return [("test", "loss", 0.5 * torch.sum(self._curvature.double() * exact * exact).item())]
