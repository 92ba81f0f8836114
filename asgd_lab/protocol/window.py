"""The training loss or error in the pushes, averaged over minibatches, and the budget's limits for it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from asgd_lab.protocol.members import Budget


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


class Patience:
    """Early stopping: counts observations of a metric since the best one.

    Goodfellow et al. 2016, Deep Learning, algorithm 7.1; a value is better if it differs from the best one by more than
    `min_delta`. A value that is not finite is never better.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, rises: bool = False) -> None:
        self._patience, self._min_delta, self._sign = patience, min_delta, -1.0 if rises else 1.0
        self.best = math.nan
        self.observations = 0
        self.since_best = 0

    @property
    def reached(self) -> bool:
        """Whether the last `patience` observations were no improvement."""
        return self.since_best >= self._patience

    def observe(self, value: float) -> None:
        """Take the next observation."""
        self.observations += 1
        if math.isfinite(value) and not self._sign * (self.best - value) <= self._min_delta:  # there may be no best yet
            self.best, self.since_best = value, 0
        else:
            self.since_best += 1


class Windows:
    """Consecutive windows of whole pushes, each of at least `minibatches` minibatches; `observe` takes their means."""

    def __init__(self, minibatches: int, observe: Callable[[float], None]) -> None:
        self._minibatches, self._observe = minibatches, observe
        self._steps = 0
        self._sum = 0.0

    def add(self, steps: int, value: float) -> None:
        """Add a push of `steps` minibatches with this mean."""
        self._steps += steps
        self._sum += value * steps
        if self._steps >= self._minibatches:
            self._observe(self._sum / self._steps)
            self._steps, self._sum = 0, 0.0


class Limits:
    """The budget's limits for loss and error in the pushes."""

    def __init__(self, budget: Budget, errors: Window) -> None:
        """`errors` has the error of every push."""
        self._errors = errors
        self._losses = Window(budget.target_window, budget.target_loss)
        self._early_stop = budget.early_stop
        stop = self._early_stop
        self.patience = Patience(stop.patience, stop.min_delta) if stop is not None else None
        self._windows = Windows(budget.target_window, self.patience.observe) if self.patience is not None else None

    @classmethod
    def of(cls, budget: Budget, errors: Window) -> Limits | None:
        """The limits of this budget; None if it has none."""
        stated = (budget.target_error, budget.target_loss, budget.early_stop)
        return None if stated == (None, None, None) else cls(budget, errors)

    def add(self, steps: int, loss: float, error: float) -> None:
        """Add a push of `steps` minibatches with these means, whose error `errors` has already."""
        if loss == loss:
            self._losses.add(steps, loss)
        if self._windows is None or self._early_stop is None:
            return
        if not self._early_stop.of_error:
            self._windows.add(steps, loss)
        elif error == error:
            self._windows.add(steps, error)

    @property
    def reached(self) -> str | None:
        """The key of the budget whose limit is reached; None before the end."""
        if self._errors.reached:
            return "target_error"
        if self._losses.reached:
            return "target"
        return "early_stop" if self.patience is not None and self.patience.reached else None
