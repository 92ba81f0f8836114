"""Minibatches of any form: mappings, lists and tuples of tensors, and other objects with methods of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from asgd_lab.tasks.determinism import same

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Everything in it that is no container, with its place, such as `[0]['ids']`."""
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if pairs is None:
        yield "", tree
        return
    for key, value in pairs:
        yield from ((f"[{key!r}]{place}", leaf) for place, leaf in leaves(value))


def cloned(tree: Any) -> Any:
    """A copy with tensors of its own."""
    return _mapped(lambda leaf: leaf.clone() if hasattr(leaf, "clone") else leaf, tree)


def on(device: torch.device, tree: Any) -> Any:
    """The tree with its tensors on that device."""
    return _mapped(lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf, tree)


def difference(one: Any, other: Any) -> str | None:
    """The first place where two trees differ; None if all tensors have equal bits and all else is equal."""
    here, there = list(leaves(one)), list(leaves(other))
    if [place for place, _ in here] != [place for place, _ in there]:
        return "its structure"
    for (place, left), (_, right) in zip(here, there, strict=True):
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            alike = left.dtype == right.dtype and same(left, right, 0.0)
        else:
            alike = type(left) is type(right) and (left == right or not isinstance(left, _PLAIN))
        if not alike:
            return place or "its values"
    return None


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        found: Any = copy.copy(tree)
        for key, value in tree.items():
            found[key] = _mapped(function, value)
        return found
    if isinstance(tree, list | tuple):
        values = [_mapped(function, value) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return function(tree)
