"""Minibatches of any form: mappings, lists, tuples and dataclasses of tensors, and objects with methods of tensors."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asgd_lab.tasks.determinism import same

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
        return left.dtype == right.dtype and same(left, right, 0.0)
    if isinstance(left, np.ndarray | np.generic):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    return not isinstance(left, _PLAIN) or bool(left == right) or left != left  # nothing is known of other values


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
