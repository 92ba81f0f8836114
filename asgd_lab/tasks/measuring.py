"""Errors and losses of a network that has stopped learning, over samples of one split."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from asgd_lab.tasks.feeds import Source
from asgd_lab.tasks.models import Loss

CHUNK = 256  # images of one forward pass


def measure(
    model: nn.Module, loss_of: Loss, source: Source, split: str, index: Tensor, labels: Tensor
) -> dict[str, float]:
    """Error, where there are classes, and loss of these samples; of several views the first's, and their average's.

    Of image files also the top-5 error, where it is not always 0 or there are several views.
    """
    wrong, loss = Counter[str](), 0.0
    for chunk, classes in zip(torch.split(index, CHUNK), torch.split(labels, CHUNK), strict=True):
        outputs = [model(view) for view in source.views(split, chunk)]
        if not labels.is_floating_point():
            wrong["error"] += int(outputs[0].argmax(1).ne(classes).sum())
        ranked = {"top5_error": outputs[0]} if source.of_files and outputs[0].shape[1] > 5 else {}
        if len(outputs) > 1:
            mean = torch.stack([each.softmax(1) for each in outputs]).mean(0)
            wrong["ten_crop_error"] += int(mean.argmax(1).ne(classes).sum())
            ranked = {"top5_error": outputs[0], "ten_crop_top5_error": mean}
        for name, scores in ranked.items():
            best = scores.topk(min(5, scores.shape[1]), dim=1).indices
            wrong[name] += int(best.ne(classes.unsqueeze(1)).all(1).sum())
        if loss_of is cross_entropy:
            loss += float(cross_entropy(outputs[0], classes, reduction="sum"))
        else:
            loss += float(loss_of(outputs[0], classes)) * len(classes)
    return {name: count / len(index) for name, count in wrong.items()} | {"loss": loss / len(index)}
