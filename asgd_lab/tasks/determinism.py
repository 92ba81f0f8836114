"""How alike two computations of the same thing are: on the CPU to the bit, on a GPU where its algorithms are so."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

_ROUNDING, _NOT_PROMISED = 1e-5, 1e-2  # code that is compiled while it runs rounds otherwise the second time


def tolerance(device: torch.device) -> float:
    """The relative difference beyond which more than rounding is at work."""
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    return _ROUNDING if device.type != "cuda" or strict else _NOT_PROMISED


def same(one: Tensor, other: Tensor, near: float) -> bool:
    """Whether their difference is that small beside them, at 0.0 whether they are equal; nan is itself."""
    if one.shape != other.shape:
        return False
    if one.is_floating_point() and one.itemsize == 1:  # torch compares none of these
        one, other = one.float(), other.float()
    if not near:
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    one, other = one.double().nan_to_num(), other.double().nan_to_num()
    return bool((one - other).norm() <= near * other.norm())


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Inside, a GPU computes the same bits each time wherever torch knows how; what it does not know how runs too."""
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
