"""Looks at single pushes of the record: how stale each is in versions, in seconds, in distance and in its gradient.

The gradient of a push's first minibatch is computed at the point that its worker had fetched and at the newest version:
their cosine is 1 where staleness changes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from asgd_lab.errors import RunFailed
from asgd_lab.protocol.messages import PushRequest
from asgd_lab.tasks import Task


class Look(NamedTuple):
    """One push: `seconds` from the grant of its fetch to its service, on the run's clock."""

    worker: int
    number: int
    staleness: int
    seconds: float
    distance: float  # Euclidean, between the fetched version and the newest
    cosine: float  # between the gradients of one minibatch at the two


class Looker:
    """Looks at one push of every `every`."""

    def __init__(self, task: Task, initial: Tensor, every: int) -> None:
        self._task, self._every = task, every
        self._params, self._gradient = torch.empty_like(initial), torch.zeros_like(initial)
        self._learners: dict[int, Any] = {}
        self._count = 0
        self.looks: list[Look] = []

    def look(
        self, push: PushRequest, first: int, center: Tensor, newest: Tensor, staleness: int, waited_ns: int
    ) -> None:
        """Look at a push whose first minibatch was `first`; `center` and `newest` are (P,)."""
        self._count += 1
        if self._count % self._every:
            return
        stale, fresh = (self._at(point, push.worker, first) for point in (center, newest))
        cosine = float(torch.nn.functional.cosine_similarity(stale, fresh, dim=0))
        distance = float(torch.dist(center, newest))
        self.looks.append(Look(push.worker, push.number, staleness, waited_ns * 1e-9, distance, cosine))

    def _at(self, point: Tensor, worker: int, step: int) -> Tensor:
        """(P,) the gradient of a minibatch at a point."""
        self._params.copy_(point)
        self._gradient.zero_()
        if worker not in self._learners:
            self._learners[worker] = self._task.learner(worker, self._params, self._gradient)
        try:
            self._learners[worker].minibatch(step)
        except Exception as error:
            raise RunFailed(f"worker {worker}: minibatch {step} has no gradient at another point: {error}") from error
        return self._gradient.clone()
