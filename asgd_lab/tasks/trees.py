"""Minibatches of any form: mappings, lists, tuples and dataclasses of tensors, and objects with methods of tensors."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def _items(tree: Any) -> list[tuple[Any, Any]] | None:
    """The keys and values of a container; None for anything else."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    return None


def leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Everything in it that is no container, with its place, such as `[0]['ids']`."""
    items = _items(tree)
    if items is None:
        yield "", tree
        return
    for key, value in items:
        yield from ((f"[{key!r}]{place}", leaf) for place, leaf in leaves(value))


def cloned(tree: Any) -> Any:
    """A copy with tensors of its own."""
    return _mapped(lambda leaf: leaf.clone() if hasattr(leaf, "clone") else copy.copy(leaf), tree)


def on(device: torch.device, tree: Any) -> Any:
    """The tree with its tensors on that device."""
    return _mapped(lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf, tree)


def difference(one: Any, other: Any) -> str | None:
    """The first place where two trees differ; None if all tensors have equal bits and all plain values are equal."""
    here, there = list(leaves(one)), list(leaves(other))
    if [place for place, _ in here] != [place for place, _ in there]:
        return "its structure"
    for (place, left), (_, right) in zip(here, there, strict=True):
        if not _are_alike(left, right):
            return place or "its value"
    return None


def _are_alike(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        return _have_same_bits(left, right)
    if isinstance(left, np.ndarray) and left.dtype.hasobject:
        return left.shape == right.shape and difference(left.tolist(), right.tolist()) is None
    if isinstance(left, np.ndarray | np.generic):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    if isinstance(left, _PLAIN):
        return bool(left == right) or left != left
    return _have_alike_attributes(left, right)


def _have_same_bits(left: Tensor, right: Tensor) -> bool:
    if (left.dtype, left.layout, left.device) != (right.dtype, right.layout, right.device):
        return False
    if left.is_nested != right.is_nested:
        return False
    here, there = _dense_parts(left.detach()), _dense_parts(right.detach())
    if [each.shape for each in here] != [each.shape for each in there]:
        return False
    return all(torch.equal(_bytes(one), _bytes(other)) for one, other in zip(here, there, strict=True))


def _dense_parts(tensor: Tensor) -> list[Tensor]:
    """Dense tensors that hold all of its numbers."""
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.is_quantized:
        return [tensor.int_repr()]
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor.resolve_conj().resolve_neg()]


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _have_alike_attributes(left: Any, right: Any) -> bool:
    """Whether the attributes of two objects are alike, such as those of a SimpleNamespace; True if nothing is known."""
    if isinstance(left, type) or not hasattr(left, "__dict__"):
        return True
    try:
        return difference(vars(left), vars(right)) is None
    except RecursionError:  # objects that know each other
        return True


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    items = _items(tree)
    if items is None:
        return function(tree)
    found = {key: _mapped(function, value) for key, value in items}
    if isinstance(tree, Mapping):
        copied: Any = copy.copy(tree)
        for key, value in found.items():
            copied[key] = value
        return copied
    if isinstance(tree, list | tuple):
        return type(tree)(*found.values()) if hasattr(tree, "_fields") else type(tree)(found.values())
    copied = copy.copy(tree)
    for key, value in found.items():
        object.__setattr__(copied, key, value)
    return copied
