"""The training loss or error in the pushes, averaged over the newest minibatches, and the budget's target for it."""

from __future__ import annotations

import math
from collections import deque


class Window:
    """The mean over at least `minibatches` minibatches of whole pushes; pushes without a value (NaN) are left out."""

    def __init__(self, minibatches: int, target: float | None) -> None:
        self._minibatches, self.target = minibatches, target
        self._pushes: deque[tuple[int, float]] = deque()  # minibatches, and the sum of their values
        self._steps = 0
        self._sum = 0.0

    @property
    def mean(self) -> float:
        """The mean; NaN before the first push."""
        return self._sum / self._steps if self._steps else math.nan

    @property
    def reached(self) -> bool:
        """Whether a full window has reached the target, if there is one."""
        return self.target is not None and self._steps >= self._minibatches and self.mean <= self.target

    def add(self, steps: int, value: float) -> None:
        """Add a push of `steps` minibatches with this mean; drop old pushes that a full window does not need."""
        pushes = self._pushes
        pushes.append((steps, value * steps))
        self._steps += steps
        self._sum += value * steps
        while self._steps - pushes[0][0] >= self._minibatches:
            oldest, its_sum = pushes.popleft()
            self._steps -= oldest
            self._sum -= its_sum
