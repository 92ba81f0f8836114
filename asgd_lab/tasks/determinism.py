"""Comparison of repeated computations: equal bits on the CPU, and on a GPU with deterministic algorithms."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

_ROUNDING, _NOT_PROMISED = 1e-5, 1e-2  # just-in-time compiled code rounds differently in its second call


def tolerance(device: torch.device) -> float:
    """The relative difference that rounding may cause on this device."""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    return _ROUNDING if device.type != "cuda" or strict else _NOT_PROMISED


def same(one: Tensor, other: Tensor, near: float) -> bool:
    """Whether their relative difference is at most `near`, or at 0.0 whether they are equal; nan equals nan."""
    if one.shape != other.shape:
        return False
    if one.is_floating_point() and one.itemsize == 1:  # torch cannot compare these types
        one, other = one.float(), other.float()
    if not near:
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    one, other = one.double().nan_to_num(), other.double().nan_to_num()
    return bool((one - other).norm() <= near * other.norm())


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Use torch's deterministic algorithms on a GPU; operations without one run all the same."""
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic")
        torch.use_deterministic_algorithms(True, warn_only=True)
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)
            cudnn.deterministic, cudnn.benchmark = before
