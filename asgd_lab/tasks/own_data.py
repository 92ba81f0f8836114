"""Data from a user's function or from array files: checked, and kept in their own memory and type where possible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asgd_lab.errors import ScenarioError
from asgd_lab.streams import key
from asgd_lab.tasks.array_files import tensor
from asgd_lab.tasks.base import Data, check_free_memory, one_line
from asgd_lab.tasks.code_imports import imported
from asgd_lab.tasks.global_generators import preserving_generators, seed_all
from asgd_lab.tasks.samples import chunks
from asgd_lab.tasks.torch_settings import preserving_settings

PARTS = ("train_images", "train_labels", "test_images", "test_labels")
_KEYS = "train_keys"  # an optional entry
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_ROUNDING = 1e-3  # of a number's standard deviation over the samples
_NOISE = 1e-12  # of a number's size
_TOGETHER = 2**20  # numbers


def made_by(name: str, options: Mapping[str, Any], train_samples: int | None) -> Data:
    """The data of the user's function: inputs and labels of any shape, samples in the first dimension."""
    factory = imported("task.dataset", name, f"it returns a dict of {', '.join(PARTS)}")
    try:
        with preserving_generators(), preserving_settings():
            seed_all(key(0, "data"))  # the same data for every seed of the scenario
            made = factory(**options)
    except Exception as error:
        raise ScenarioError.at("task.dataset", f"{name} raised {one_line(error)}") from error
    if isinstance(made, dict):
        arrays = {
            part: tensor("task.dataset", name, value) for part, value in made.items() if isinstance(value, np.ndarray)
        }
        made = {**made, **arrays}
    if (
        not isinstance(made, dict)
        or set(made) - {_KEYS} != set(PARTS)
        or not all(isinstance(v, Tensor) for v in made.values())
    ):
        found = sorted(map(str, made)) if isinstance(made, dict) else type(made).__name__
        message = f"{name} returned {found}; it must be a dict of tensors or arrays {', '.join(PARTS)}"
        raise ScenarioError.at("task.dataset", message)
    return kept(name, made, train_samples)


def kept(name: str, made: Data, train_samples: int | None) -> Data:
    """Inputs and labels as they are stored; a `ScenarioError` if they do not fit together or cannot be stored."""
    for part, value in made.items():
        if value.layout != torch.strided or value.is_quantized:
            raise ScenarioError.at("task.dataset", f"{name}: {part} is {value.layout}; it must be a dense tensor")
    for split in ("train", "test"):
        images, labels = made[f"{split}_images"], made[f"{split}_labels"]
        if not images.dim() or not labels.dim() or not len(labels) or len(images) != len(labels):
            message = f"{name} has {split}_images of {tuple(images.shape)} for labels of {tuple(labels.shape)}"
            raise ScenarioError.at("task.dataset", f"{message}; both must have samples in their first dimension")
    keys = made.get(_KEYS)
    if keys is not None and (keys.shape != made["train_labels"].shape[:1] or keys.dtype not in _WHOLE):
        message = f"{name} has {_KEYS} of {tuple(keys.shape)} {keys.dtype}; it must be a whole number for each sample"
        raise ScenarioError.at("task.dataset", message)
    check_samples(name, train_samples, len(made["train_labels"]))
    used = {part: value[:train_samples] if part.startswith("train") else value for part, value in made.items()}
    return {part: _kept(part, value) for part, value in used.items()}


def check_samples(name: str, asked: int | None, samples: int) -> None:
    """A `ScenarioError` if more training samples are asked for than there are."""
    if asked is not None and asked > samples:
        raise ScenarioError.at("task.train_samples", f"{asked} is more than the {samples} training samples of {name}")


def _kept(part: str, value: Tensor) -> Tensor:
    """The tensor as it is stored: in the user's own memory if its type allows; `samples.pick` converts minibatches.

    float64 becomes float32 like the parameters (seven digits), uint64 becomes int64.
    """
    value = value.detach().cpu()
    if value.dtype == torch.float64:
        check_free_memory("task.dataset", f"has too large a part: {part} as float32 takes", value.nbytes // 2)
        narrow = value.to(torch.float32)
        check_rounding(part, value, narrow)
        return narrow.contiguous()
    if value.dtype == torch.uint64:
        value = value.view(torch.int64)
        if any(bool((each < 0).any()) for each in chunks(value)):
            message = f"{part} has integers beyond 2**63 - 1, which torch has no type for"
            raise ScenarioError.at("task.dataset", message)
    if not value.is_contiguous():
        check_free_memory("task.dataset", f"has too large a part: {part} in order takes", value.nbytes)
    return value.contiguous()


def check_rounding(part: str, value: Tensor, narrow: Tensor) -> None:
    """A `ScenarioError` if float32 makes different samples equal, such as Unix times within one minute."""
    samples, columns = len(value), value[:1].numel()
    lost, most, total, squares = (torch.zeros(columns, dtype=torch.float64) for _ in range(4))
    is_whole = torch.ones(columns, dtype=torch.bool)
    for wide, short in _pairs(value, narrow):
        if not torch.equal(short.isfinite(), wide.isfinite()):
            raise ScenarioError.at("task.dataset", f"{part} has values beyond what float32 holds, 3.4e38")
        rows = wide.nan_to_num(0.0, 0.0, 0.0)
        lost = torch.maximum(lost, (short.nan_to_num(0.0, 0.0, 0.0) - rows).abs().amax(0))
        most = torch.maximum(most, rows.abs().amax(0))
        is_whole &= (rows == rows.round()).all(0)
        total += rows.sum(0)
    for wide, _ in _pairs(value, narrow):
        squares += (wide.nan_to_num(0.0, 0.0, 0.0) - total / samples).square().sum(0)
    spread = (squares / samples).sqrt()
    # A number that is equal in all samples, but for rounding, does not distinguish them.
    bad = (lost > _ROUNDING * spread) & (spread > _NOISE * most)
    if bool(bad.any()):
        which = int(bad.nonzero()[0])
        message = (
            f"{part} is float64, of which float32 is off by up to {float(lost[which]):.3g} where samples differ by "
            f"{float(spread[which]):.3g} (their standard deviation); shift or scale it, or return integers"
        )
        raise ScenarioError.at("task.dataset", message)
    merged = (lost > 0) & is_whole & (spread > 0)
    if bool(merged.any()):
        message = f"{part} has integers as float64, beyond 16,777,216, which float32 does not hold; return integers"
        raise ScenarioError.at("task.dataset", message)


def _pairs(value: Tensor, narrow: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (B, columns) of both, some at a time: a whole copy may not fit into memory."""
    length = max(1, _TOGETHER // max(1, value[:1].numel()))
    for wide, short in zip(torch.split(value, length), torch.split(narrow, length), strict=True):
        yield wide.reshape(len(wide), -1), short.reshape(len(wide), -1)
