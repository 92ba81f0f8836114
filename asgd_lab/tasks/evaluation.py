"""Evaluation of a network in evaluation mode over samples of one split, and estimates of BatchNorm's statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from asgd_lab.tasks.bound_module import BoundModule, Buffers
from asgd_lab.tasks.feeds import Source
from asgd_lab.tasks.objective import Objective


def measure(
    model: nn.Module, objective: Objective, source: Source, split: str, index: Tensor, labels: Tensor, batch_size: int,
    whole: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Loss of these samples, and error if one is defined, for the first view and for the average of several views.

    Samples are taken in minibatches, and the last one may be shorter; for a model that takes only `whole` minibatches
    it is filled up, and the outputs of the fill are left out. Image files also have a top-5 error, if there are more
    than five classes or several views.
    """
    wrong, labelled, loss, weight = Counter[str](), 0, 0.0, 0.0
    for chunk, classes in zip(torch.split(index, batch_size), torch.split(labels, batch_size), strict=True):
        taken = filled(chunk, batch_size) if whole else chunk
        outputs = [model(view) for view in source.views(split, taken)]
        if len(taken) > len(chunk):
            outputs = [each[: len(chunk)] for each in outputs]
        found = objective.sums(outputs[0], classes)
        loss, weight = loss + found.loss, weight + found.weight
        if not found.labels:
            continue
        labelled += found.labels
        wrong["error"] += found.wrong
        ranked = {"top5_error": outputs[0]} if source.of_files and outputs[0].shape[1] > 5 else {}
        if len(outputs) > 1:
            mean = torch.stack([each.softmax(1) for each in outputs]).mean(0)
            wrong["ten_crop_error"] += int(mean.argmax(1).ne(classes).sum())
            ranked = {"top5_error": outputs[0], "ten_crop_top5_error": mean}
        for name, scores in ranked.items():
            best = scores.topk(min(5, scores.shape[1]), dim=1).indices
            wrong[name] += int(best.ne(classes.unsqueeze(1)).all(1).sum())
    return {name: count / labelled for name, count in wrong.items()} | {
        "loss": loss / weight if weight else float("nan")
    }


def filled(chunk: Tensor, batch_size: int) -> Tensor:
    """The chunk repeated up to `batch_size` samples."""
    return chunk.repeat(-(-batch_size // len(chunk)))[:batch_size]


def estimated(bound: BoundModule, passes: Iterable[Callable[[nn.Module], object]]) -> Buffers:
    """Buffers of the BatchNorm layers in training mode: the mean of their statistics over these forward passes.

    It is torch.optim.swa_utils.update_bn, except that layers in evaluation mode keep their statistics and are left out.
    The caller must undo changes that the passes make to the module's other buffers.
    """
    layers = {
        name: layer
        for name, layer in bound.model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.training and layer.track_running_stats
    }
    momenta = {name: layer.momentum for name, layer in layers.items()}
    if not layers:
        return {}
    try:
        for layer in layers.values():
            layer.reset_running_stats()
            layer.momentum = None  # the mean over all minibatches
        for each in passes:
            each(bound.model)
        return {
            bound.canonical[f"{name}.{part}" if name else part]: buffer.clone()
            for name, layer in layers.items()
            for part, buffer in layer.named_buffers(recurse=False)
        }
    finally:
        for name, layer in layers.items():
            layer.momentum = momenta[name]
