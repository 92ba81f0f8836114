"""Checks of a data set's values before a run: nan and infinities, labels far off all others, and extreme samples.

A model or a loss may accept all of a data set except its least or greatest integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.tasks.base import Data
from asgd_lab.tasks.samples import chunks

_MANY_CLASSES = 10_000
_MANY_PER_LABEL = 10  # classes


def not_finite(data: Data, split: str) -> Iterator[tuple[str, int]]:
    """The first sample with nan or an infinity, for inputs and for labels that have one."""
    for part in (f"{split}_images", f"{split}_labels"):
        values = data.get(part)
        if values is None or not (values.is_floating_point() or values.is_complex()):
            continue
        begins = 0
        for each in chunks(values):
            bad = each.isfinite().logical_not_().reshape(len(each), -1).any(1)
            if bool(bad.any()):
                yield part, begins + int(bad.nonzero()[0])
                break
            begins += len(each)


def check_loss_of(part: str, sample: int, loss: float) -> None:
    """A `ScenarioError` if the loss of a minibatch with a sample that is not finite is not finite either."""
    if not math.isfinite(loss):
        message = (
            f"{part} has nan or an infinity in sample {sample:,} (from 0), and the loss of its minibatch is {loss}"
        )
        raise ScenarioError.at("task.dataset", f"{message}; replace such values, or leave the sample out")


def check_two_classes(classes: int) -> None:
    """A `ScenarioError` for a single class: its cross-entropy is 0, and has no gradient."""
    if classes < 2:
        message = "train_labels and test_labels have one class only, 0; a network learns to tell two or more apart"
        raise ScenarioError.at("task.dataset", message)


def check_outliers(split: str, labels: Tensor, of: int) -> None:
    """A `ScenarioError` for a class that asks for many more outputs than there are training labels, `of`."""
    begins, most = 0, max(_MANY_CLASSES, _MANY_PER_LABEL * of)
    for each in chunks(labels):
        far = (each >= most).reshape(len(each), -1).any(1)
        if bool(far.any()):
            sample = int(far.nonzero()[0])
            label = int(each[sample].max())
            message = f"{split}_labels has {label:,} in sample {begins + sample:,} (from 0): the network would have "
            raise ScenarioError.at("task.dataset", f"{message}{label + 1:,} outputs; number the classes from 0")
        begins += len(each)


def label_doubts(labels: Tensor) -> Iterator[str]:
    """A warning if all labels are one class, or if one is far beyond all others, as a mark for "no class" often is."""
    found = torch.unique(torch.cat([torch.unique(each) for each in chunks(labels)]))
    found = found[found >= 0]
    if len(found) == 1:
        yield f"task.dataset: train_labels are all {int(found[0])}: nothing can be told apart"
    if len(found) > 1 and int(found[-1]) > 2 * int(found[-2]) + 1:
        last, before = int(found[-1]), int(found[-2])
        yield (
            f"task.dataset: the largest label is {last}, and the next one {before}: the network has {last + 1} "
            "outputs; a label that means no class is -100"
        )


def extreme_samples(data: Data, split: str) -> Tensor | None:
    """Indices of the samples with the least and the greatest integer among inputs and labels; None without integers.

    An index beyond a table, or a class beyond the outputs, is in one of these samples.
    """
    found = {
        _extreme(values, least)
        for part in ("images", "labels")
        if (values := data.get(f"{split}_{part}")) is not None and _is_whole(values)
        for least in (True, False)
    }
    return torch.tensor(sorted(found)) if found else None


def first_labelled(labels: Tensor) -> int:
    """The first sample with a label that is no mark for "no class"; 0 where there are no classes, or no such sample."""
    if not _is_whole(labels):
        return 0
    begins = 0
    for each in chunks(labels):
        known = (each >= 0).reshape(len(each), -1).any(1)
        if bool(known.any()):
            return begins + int(known.nonzero()[0])
        begins += len(each)
    return 0


def _extreme(values: Tensor, least: bool) -> int:
    """The first sample with the least or the greatest integer."""
    flat = (each.reshape(len(each), -1) for each in chunks(values))
    ends = torch.cat([each.amin(1) if least else each.amax(1) for each in flat])
    return int(ends.argmin() if least else ends.argmax())


def _is_whole(values: Tensor) -> bool:
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool) and values.numel() > 0
