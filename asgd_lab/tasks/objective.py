"""The loss of a minibatch of inputs and labels, and its error where one is defined.

An error is the share of wrong answers among labels that are class indices. It is defined for outputs (B, C, ...) and
integer labels (B, ...) under our own cross-entropy. Under a user's loss it is defined for outputs (B, C) and labels
(B,) with C the data's number of classes, if the loss falls fastest when the label's output grows: the largest of
several distances, or of a mean and a variance, is no answer. An undefined error is nan.

Losses are sums with weights, so their mean over many samples does not depend on the chunks. The weight of our own
cross-entropy is the number of labels that it does not ignore. A user's loss may return (sum, weight); if it returns a
mean, the chunk's weight is its number of samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import generator
from asgd_lab.tasks.base import one_line
from asgd_lab.tasks.global_generators import preserving_generators
from asgd_lab.tasks.recipe import Metrics
from asgd_lab.tasks.samples import chunks, labels_of

Loss = Callable[[Any, Tensor], Any]
"""Maps a model's outputs and labels to the mean over a minibatch, or to (sum, weight)."""
_PROBED = 64  # labels
IGNORED = -100  # torch's own label for "no class here"


class Sums(NamedTuple):
    """Sums over the samples of a chunk; loss / weight and wrong / labels are means."""

    loss: float
    weight: float
    wrong: int
    labels: int  # counted for the error: 0 where no error is defined


@final
class Objective:
    """Cross-entropy, or a loss of the user's."""

    def __init__(self, own: Loss | None, labels: Tensor, classes: int | None) -> None:
        """`labels` (N, ...) are all labels of the data; `classes` is their number of classes, None without classes."""
        self.own, self.classes = own, classes
        self._some_ignored = classes is not None and any(bool((each < 0).any()) for each in chunks(labels))
        # Labels -1 and 1 of a margin loss are no class indices.
        self._has_signs = self._some_ignored and not any(
            bool(((each == 0) | (each == IGNORED)).any()) for each in chunks(labels)
        )
        self._probed = labels_of(labels, torch.arange(min(_PROBED, len(labels)), device=labels.device))
        self._has_error: bool | None = None  # not known before the first outputs

    def __call__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Metrics]:
        """The mean loss of inputs and labels, and the wrong answers if an error is defined."""
        inputs, labels = batch
        outputs = model(inputs)
        return self.loss(outputs, labels), self._metrics(outputs, labels)

    def _metrics(self, outputs: Any, labels: Tensor) -> Metrics:
        if self._has_error is None:
            self._has_error = self.defines_error(outputs, labels)
        return {"error": self.wrong(outputs, labels)} if self._has_error else {}

    def tried(self, name: str, model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Metrics]:
        """As a call; a `ScenarioError` if the model or the loss fails, or returns a wrong type."""
        inputs, labels = batch
        shape = tuple(inputs.shape[1:])
        try:
            outputs = model(inputs)
        except Exception as error:
            message = f"{name} cannot learn from inputs of {shape}: {one_line(error)}"
            raise ScenarioError.at("task.model", message) from error
        if self.own is None:
            check_outputs(self, name, outputs, labels)
        return check_loss(self, outputs, labels), self._metrics(outputs, labels)

    def loss(self, outputs: Any, labels: Tensor) -> Tensor:
        """The mean loss, a tensor of one element with a gradient."""
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
            with preserving_generators(), torch.enable_grad(), torch.autocast("cpu", enabled=False):
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
        """The number of wrong answers, a tensor () still on its device, and of all answers; needs `defines_error`."""
        answers = outputs.detach().argmax(1).ne(labels)
        if not self._some_ignored:
            return answers.count_nonzero(), labels.numel()
        counted = labels >= 0  # a negative label is no class
        return answers.logical_and_(counted).count_nonzero(), int(counted.count_nonzero())

    def sums(self, outputs: Any, labels: Tensor) -> Sums:
        """The sums of a chunk in an evaluation."""
        wrong, counted = self.wrong(outputs, labels) if self.defines_error(outputs, labels) else (0, 0)
        if self.own is None:
            loss = float(cross_entropy(outputs, labels, reduction="sum"))
            weight = float((labels != IGNORED).count_nonzero()) if self._some_ignored else float(labels.numel())
            return Sums(loss, weight, int(wrong), counted)
        found = self.own(outputs, labels)
        if isinstance(found, tuple):
            return Sums(float(found[0]), float(found[1]), int(wrong), counted)
        return Sums(float(found) * len(labels), len(labels), int(wrong), counted)


def check_classes(split: str, labels: Tensor) -> None:
    """A `ScenarioError` for a negative label other than torch's ignored one."""
    for each in chunks(labels):
        wrong = each[(each < 0) & (each != IGNORED)]
        if not len(wrong):
            continue
        message = f"{split}_labels has {int(wrong[0])}; classes are 0 or more, and {IGNORED} where there is none"
        raise ScenarioError.at("task.dataset", message)


def check_outputs(objective: Objective, name: str, outputs: Any, labels: Tensor) -> None:
    """A `ScenarioError` if our own cross-entropy does not accept the model's outputs."""
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
    """The minibatch's mean loss; a `ScenarioError` if the user's function fails or returns no loss."""
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
