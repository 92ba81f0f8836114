"""What is minimised and what is counted: the loss of a minibatch, and its error where one is defined.

An error is the share of wrong answers among labels that are class indices. It is defined for outputs (B, C, ...) and
integer labels (B, ...) under our own cross-entropy. Under a loss of the user's it is for outputs (B, C) and labels (B,)
where C is the data's number of classes, if the loss falls the fastest when the label's output grows: of distances, or
of a mean and its variance, the largest is no answer. Where none is defined, none is told.

Losses are sums over weights, so that their mean over many samples does not depend on the chunks they are taken in. The
weight of our own cross-entropy is the number of labels that it does not ignore. A user's loss may return (sum, weight);
where it returns a mean, each chunk's counts as often as it has samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.global_generators import preserving_generators

Loss = Callable[[Any, Tensor], Any]
"""Of a model's outputs and labels: the mean over a minibatch, or (sum, weight)."""
_PROBED = 64  # labels
IGNORED = -100  # torch's own label for "no class here"


class Sums(NamedTuple):
    """Over the samples of a chunk; a mean is one of them over another."""

    loss: float
    weight: float
    wrong: int
    labels: int  # of which a share is wrong: 0 where no error is defined


@final
class Objective:
    """Cross-entropy, or a loss of the user's."""

    def __init__(self, own: Loss | None, labels: Tensor, classes: int | None) -> None:
        """`labels` (N, ...) are all that there are; `classes` is how many they name, None where they name none."""
        self.own, self.classes = own, classes
        self._some_ignored = classes is not None and bool((labels < 0).any())
        # Those of a margin are -1 and 1, of which an index would be only half.
        self._has_signs = self._some_ignored and not bool(((labels == 0) | (labels == IGNORED)).any())
        self._probed = labels[:_PROBED]

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """The mean, a tensor of one element to go backward from."""
        if self.own is None:
            return cross_entropy(outputs, labels)
        found = self.own(outputs, labels)
        if isinstance(found, tuple):
            total, weight = found
            mean: Tensor = total / weight
            return mean
        return found  # type: ignore[no-any-return]

    def defines_error(self, outputs: Any, labels: Tensor) -> bool:
        """Whether a share of wrong answers means something for outputs and labels of these shapes."""
        if self.classes is None or not isinstance(outputs, Tensor) or outputs.dim() < 2 or outputs.shape[1] < 2:
            return False
        if self.own is None:
            return outputs.shape[:1] + outputs.shape[2:] == labels.shape
        return labels.dim() == 1 and outputs.dim() == 2 and outputs.shape[1] == self.classes and self._largest_answers

    @functools.cached_property
    def _largest_answers(self) -> bool:
        """Whether a user's loss falls the fastest when the label's output grows, at outputs near 0."""
        if self.own is None or self.classes is None or self._probed.dim() != 1 or self._has_signs:
            return False
        labels = self._probed.cpu()
        drawn = generator(0, "outputs").normal(0.0, 0.1, (len(labels), self.classes))
        outputs = torch.from_numpy(drawn).float().requires_grad_()
        try:
            with preserving_generators(), torch.enable_grad():
                found = self.own(outputs, labels)
                total: Tensor = found[0] if isinstance(found, tuple) else found
                (slopes,) = torch.autograd.grad(total, outputs)
        except Exception:
            return False
        counted = labels >= 0
        slopes, labels = slopes[counted], labels[counted, None]
        of_label, others = slopes.gather(1, labels), slopes.scatter(1, labels, math.inf).amin(1, keepdim=True)
        return bool((of_label <= others).all() and (of_label < others).any())

    def wrong(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        """How many answers are wrong, a tensor () not looked at yet, and of how many; where an error is defined."""
        answers = outputs.detach().argmax(1).ne(labels)
        if not self._some_ignored:
            return answers.count_nonzero(), labels.numel()
        counted = labels >= 0  # no class is less, whatever a loss of the user's makes of it
        return answers.logical_and_(counted).count_nonzero(), int(counted.count_nonzero())

    def sums(self, outputs: Any, labels: Tensor) -> Sums:
        """Of a chunk that is evaluated."""
        wrong, counted = self.wrong(outputs, labels) if self.defines_error(outputs, labels) else (0, 0)
        if self.own is None:
            loss = float(cross_entropy(outputs, labels, reduction="sum"))
            weight = float((labels != IGNORED).count_nonzero()) if self._some_ignored else float(labels.numel())
            return Sums(loss, weight, int(wrong), counted)
        found = self.own(outputs, labels)
        if isinstance(found, tuple):
            return Sums(float(found[0]), float(found[1]), int(wrong), counted)
        return Sums(float(found) * len(labels), len(labels), int(wrong), counted)


def share(wrong: Tensor, counted: int) -> float:
    """Of a minibatch; nan where nothing is counted."""
    return wrong.item() / counted if counted else math.nan


def check_classes(split: str, labels: Tensor) -> None:
    """A `ScenarioError` where cross-entropy knows no such class."""
    wrong = labels[(labels < 0) & (labels != IGNORED)]
    if len(wrong):
        message = f"{split}_labels has {int(wrong[0])}; classes are 0 or more, and {IGNORED} where there is none"
        raise ScenarioError.at("task.dataset", message)


def check_outputs(objective: Objective, name: str, outputs: Any, labels: Tensor) -> None:
    """A `ScenarioError` where our own cross-entropy cannot take what the model returns."""
    samples, classes = len(labels), objective.classes
    expected = f"must be one tensor of ({', '.join(['B', str(classes), *map(str, labels.shape[1:])])})"
    if not isinstance(outputs, Tensor):
        hint = "model_options: {aux_logits: false} switches auxiliary outputs off where a model of torchvision has them"
        message = f"{name} returns {type(outputs).__name__}; its output {expected}, or task.loss takes it; {hint}"
        raise ScenarioError.at("task.model", message)
    fits = outputs.dim() >= 2 and outputs.shape[:1] + outputs.shape[2:] == labels.shape
    if not fits or outputs.shape[1] < (classes or 0):
        message = f"{name} makes {tuple(outputs.shape)} of {samples} samples; its output {expected}, or more classes"
        raise ScenarioError.at("task.model", message)


def check_loss(objective: Objective, outputs: Any, labels: Tensor) -> Tensor:
    """The minibatch's loss; a `ScenarioError` where the user's function does not return one."""
    try:
        found = objective.own(outputs, labels) if objective.own is not None else objective.loss(outputs, labels)
    except Exception as error:
        raise ScenarioError.at("task.loss", f"it raised {one_line(error)}") from error
    allowed = "it must be the mean, a tensor () that has a gradient, or a tuple of such a sum and its weight"
    parts = found if isinstance(found, tuple) else (found, 1.0)
    total = parts[0] if len(parts) == 2 and isinstance(parts[1], int | float | Tensor) else None
    if not isinstance(total, Tensor) or total.numel() != 1 or not total.requires_grad:
        what = f"a tensor of {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ScenarioError.at("task.loss", f"it returns {what}; {allowed}")
    if isinstance(parts[1], Tensor) and parts[1].numel() != 1:
        raise ScenarioError.at("task.loss", f"it returns a weight of {tuple(parts[1].shape)}; {allowed}")
    return torch.as_tensor(total / parts[1])
