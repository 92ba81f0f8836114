"""The results of a user's `loss` and `step`, checked: a loss, and metrics as sums and weights.

A loss is the mean over a minibatch, a tensor () with a gradient, or a tuple of a sum and its weight. A dict of metrics
may follow it, each a tuple of a sum and its weight; both add up over minibatches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NamedTuple, final

from torch import Tensor, nn

from asgd_lab.errors import RunFailed, ScenarioError
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.recipe import Metrics

_ALLOWED = "it must be the mean, a tensor () that has a gradient, or a tuple of such a sum and its weight"
_WEIGHTS = "a weight must be 0 or more"
_LONGEST = 100  # characters of a name


class Returned(NamedTuple):
    """A loss and metrics as the user's method returns them."""

    total: Tensor
    weight: Any  # of the total; None: it is a mean
    metrics: Metrics

    def mean(self, method: str) -> tuple[Tensor, Metrics]:
        """The mean loss and the metrics; a RunFailed if the loss has no gradient."""
        if not self.total.requires_grad:
            raise RunFailed(f"{method} returns a loss without a gradient; {_ALLOWED}")
        return self.total if self.weight is None else self.total / self.weight, self.metrics

    def check(self, method: str) -> None:
        """A RunFailed for a weight that is not finite or negative, or for a loss of weight 0; it waits for a GPU."""
        weight = 1.0 if self.weight is None else float(self.weight)
        if not 0 < weight < math.inf:
            raise RunFailed(f"{method} returns a loss of weight {weight:g}; a weight must be positive")
        for name, pair in self.metrics.items():
            if not 0 <= float(pair[1]) < math.inf:
                raise RunFailed(f"{method} returns a metric {name} of weight {float(pair[1]):g}; {_WEIGHTS}")


def returned(method: str, found: Any) -> Returned:
    """The result of that method in one form; a RunFailed if it has no allowed form."""
    has_metrics = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)
    loss, metrics = found if has_metrics else (found, {})
    is_sum = isinstance(loss, tuple) and len(loss) == 2
    total, weight = loss if is_sum else (loss, None)
    if not isinstance(total, Tensor) or total.numel() != 1 or not (weight is None or _is_number(weight)):
        what = f"a tensor of {tuple(total.shape)}" if isinstance(total, Tensor) else type(total).__name__
        if weight is not None and not _is_number(weight):
            what = f"a tuple of {type(total).__name__} and {type(weight).__name__}"
        raise RunFailed(f"{method} returns {what} as its loss; {_ALLOWED}; a dict of metrics may follow it")
    for name, pair in metrics.items():
        if not isinstance(name, str) or not name.isprintable() or name in ("", "loss") or len(name) > _LONGEST:
            said = f"a name is printable text, 1 to {_LONGEST} letters, and loss is taken"
            raise RunFailed(f"{method} returns a metric named {str(name)[:_LONGEST]!r}; {said}")
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(map(_is_number, pair)):
            raise RunFailed(
                f"{method} returns {type(pair).__name__} as metric {name}; it must be a tuple (sum, weight) of real "
                "numbers"
            )
    return Returned(total, weight, metrics)


def _is_number(value: Any) -> bool:
    return value.numel() == 1 and not value.is_complex() if isinstance(value, Tensor) else isinstance(value, Real)


@final
class Losses:
    """A user's method `loss` as the objective of a network."""

    def __init__(self, name: str, loss: Callable[[nn.Module, Any], Any]) -> None:
        self._method, self._loss = f"{name}.loss", loss

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Metrics]:
        """The mean loss, with a gradient, and the metrics."""
        return self.returned(model, batch).mean(self._method)

    def returned(self, model: nn.Module, batch: Any) -> Returned:
        """The loss, with or without a gradient, and the metrics."""
        return returned(self._method, self._loss(model, batch))

    def tried(self, name: str, model: nn.Module, batch: Any) -> tuple[Tensor, Metrics]:
        """The mean loss and the metrics; a `ScenarioError` if the method fails, or its loss no gradient or weight."""
        try:
            found = self.returned(model, batch)
            found.check(self._method)
            return found.mean(self._method)
        except Exception as error:
            said = str(error) if isinstance(error, RunFailed) else f"{self._method} raised {one_line(error)}"
            raise ScenarioError.at("task.task", said) from error

    def means(self, split: str, model: nn.Module, batches: Iterable[Any]) -> dict[str, float]:
        """The metrics and the loss over minibatches: sums over weights; a mean loss has weight 1 in each minibatch.

        A RunFailed if the minibatches have different metrics.
        """
        sums: dict[str, float] = {}
        weights: dict[str, float] = {}
        names: list[str] | None = None
        for batch in batches:
            found = self.returned(model, batch)
            names = sorted(found.metrics) if names is None else names
            if names != sorted(found.metrics):
                here, there = (", ".join(each) or "none" for each in (names, sorted(found.metrics)))
                raise RunFailed(
                    f"{self._method} returns the metrics {here} for a minibatch of {split}, {there} for another"
                )
            loss = (found.total, 1.0 if found.weight is None else found.weight)
            for name, (total, weight) in (*found.metrics.items(), ("loss", loss)):
                if float(weight) < 0:
                    what = f"{self._method} returns {name} of weight {float(weight):g} for a minibatch of {split}"
                    raise RunFailed(f"{what}; {_WEIGHTS}")
                sums[name] = sums.get(name, 0.0) + float(total)
                weights[name] = weights.get(name, 0.0) + float(weight)
        if names is None:
            raise RunFailed(f"evaluations yields no minibatch of {split} any more; it must make them anew in each call")
        return {name: total / weights[name] if weights[name] else math.nan for name, total in sums.items()}
